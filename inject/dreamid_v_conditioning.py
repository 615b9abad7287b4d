"""What DreamID-V's model sees beside noise: the clip, its mask and the photo, as the host's conditioning carries them.

Follows ``generate_dreamidv.py`` of bytedance/DreamID-V. Quirks: the mask passes through the VAE as 0..1 where every
other picture does as -1..1; the unconditional side sees the same clip and mask, and a photo of exact zeros.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.dreamid_v.layout import LATENT, TEXT
from ..faces.errors import BadImage
from ..faces.masks import as_mask
from . import host
from .dreamid_v import TITLE, check_frames, require_wan
from .kept import itself
from .loaded import LoadedAdapter
from .reference_features import tensor_digest

Conditioning = list[list[Any]]


def condition(
    vae: Any,
    positive: Conditioning,
    negative: Conditioning,
    frames: Tensor,
    reference: Tensor,
    mask: Tensor | None,
    loaded: LoadedAdapter | None = None,
) -> tuple[Conditioning, Conditioning, Tensor]:
    """Encode a clip and put it beside both texts.

    Args:
        vae: that of Wan 2.1.
        positive, negative: the text; the authors use the same one on both sides.
        frames: (4n + 1, H, W, 3), 0..1, H and W multiples of 16.
        reference: (1, H, W, 3) the photo, letterboxed.
        mask: (4n + 1, H, W) or (1, H, W), 0..1, where the face is; None for everywhere.
        loaded: who keeps the latents for as long as the pictures are in use, or None where they are used once.

    Returns:
        The two conditionings, and the empty latent (1, 16, n + 1, H / 8, W / 8).

    Raises:
        HostTooOld: this ComfyUI cannot run the model.
        BadImage, BadMask: sizes or counts that do not fit.
        BaseModelMismatch: another VAE or text encoder.
    """
    require_wan()
    check_frames(frames, "frames")
    check_frames(reference, "photo", like=frames[:1])
    for text in (positive, negative):
        _check_text(text)
    _check_vae(vae)
    seen = torch.ones(frames.shape[:3]) if mask is None else as_mask(mask, *frames.shape[:3])
    shown = _latent(loaded, vae, "frames", frames, frames)
    place = _latent(loaded, vae, "mask", seen if mask is None else mask, mask_pictures(seen))
    clip = torch.cat((shown, place), dim=1)
    photo = _latent(loaded, vae, "photo", reference, reference)
    latent = torch.zeros(1, LATENT, *clip.shape[2:])
    return _with(positive, clip, photo), _with(negative, clip, no_photo(photo)), latent


def mask_pictures(mask: Tensor) -> Tensor:
    """Masks (F, H, W), 0..1, as pictures (F, H, W, 3) that the host's VAE passes on as 0..1 instead of -1..1."""
    return ((mask.float() + 1) / 2)[..., None].expand(-1, -1, -1, 3)


def encoded(vae: Any, pictures: Tensor) -> Tensor:
    """Pictures (F, H, W, 3) as a latent (1, 16, n + 1, H / 8, W / 8) in the VAE's own scale."""
    host.stop_if_cancelled()
    latent: Tensor = vae.encode(pictures)
    return latent


def _latent(loaded: LoadedAdapter | None, vae: Any, what: str, given: Tensor, pictures: Tensor) -> Tensor:
    """The latent of ``pictures``, which were made of ``given``."""
    if loaded is None:
        return encoded(vae, pictures)
    key = (what, itself(vae), tensor_digest(given), tuple(pictures.shape))
    return loaded.made(key, lambda: encoded(vae, pictures), of=given)


def no_photo(like: Tensor) -> Tensor:
    """A latent of the shape of ``like`` that the model sees as exact zeros once the host has normalised it."""
    latents: Any = importlib.import_module("comfy.latent_formats").Wan21()
    zeros: Tensor = latents.process_out(torch.zeros_like(like))
    return zeros


def _with(text: Conditioning, clip: Tensor, photo: Tensor) -> Conditioning:
    values = {"concat_latent_image": clip, "reference_latents": [photo]}
    return [[context, {**others, **values}] for context, others in text]


def _check_text(text: Conditioning) -> None:
    widths = {int(context.shape[-1]) for context, _ in text}
    if widths != {TEXT}:
        raise BaseModelMismatch(
            f"text for {TITLE}",
            expected=f"a text of width {TEXT}, by the text encoder umT5-xxl of Wan 2.1",
            found=", ".join(map(str, sorted(widths))) or "no text",
            cure="encode 'chang face' with 'Load CLIP' of type wan",
        )


def _check_vae(vae: Any) -> None:
    channels, axes = getattr(vae, "latent_channels", None), getattr(vae, "latent_dim", None)
    if (channels, axes) != (LATENT, 3):
        raise BaseModelMismatch(
            f"VAE for {TITLE}",
            expected="the VAE of Wan 2.1 (16 channels, with time)",
            found=f"one of {channels} channels in {axes} dimensions",
            cure="load Wan2.1_VAE with 'Load VAE'",
        )


def decoded(vae: Any, latent: Tensor) -> Tensor:
    """A latent (1, 16, n + 1, h, w) as frames (4n + 1, H, W, 3), 0..1."""
    host.stop_if_cancelled()
    pictures: Tensor = vae.decode(latent)
    frames = pictures.reshape(-1, *pictures.shape[-3:])
    if frames.shape[0] % 4 != 1:
        raise BadImage(
            f"frames from the VAE of {TITLE}",
            expected="4n + 1 frames",
            found=str(frames.shape[0]),
            cure="connect the VAE of Wan 2.1",
        )
    return frames
