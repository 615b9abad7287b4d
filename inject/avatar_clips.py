"""Encoded clips for training the emotion module, made of what a graph has: latents, conditioning, sound and masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.audio_features import AudioFeatures
from ..adapters.families.avatar_emotion.layout import LATENT_SCALE
from ..adapters.families.hunyuan_avatar.face_mask import latent_masks
from ..adapters.families.hunyuan_avatar.windows import RATE
from ..faces.errors import LikenessError
from .hunyuan_avatar_call import TEXT_MASK
from .hunyuan_avatar_character import picture_latents
from .masks import checked_mask
from .training_places import BadPlace, training_folder


def clip_tensors(
    video: Tensor,
    emotion: Tensor,
    conditioning: Any,
    reference: Tensor | None = None,
    audio: AudioFeatures | None = None,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """The tensors of one clip's file, see `training.avatar_clips.EmotionClip`.

    Args:
        video: latent (1, 16, T, H, W) of the clip by HunyuanVideo's VAE.
        emotion: latent of the emotion's picture.
        conditioning: the prompt, from 'Encode Avatar Prompt'.
        reference: latent of the character's picture.
        audio: features of the sound; its first track is taken, cut or filled with silence to the clip's length.
        mask: where the character is.

    Raises:
        BadImage, BadMask, LikenessError: inputs of another kind.
    """
    latents = picture_latents(video, _scaled)[0]
    frames = RATE * (latents.shape[1] - 1) + 1
    tensors = {"latents": latents, "emotion": picture_latents(emotion, _scaled)[0, :, :1], **_words(conditioning)}
    if reference is not None:
        tensors["reference"] = picture_latents(reference, _scaled)[0, :, :1]
    if audio is not None:
        heard = audio.features[0].detach().to("cpu", torch.float32)[:frames]
        silence = heard.new_zeros(frames - len(heard), *heard.shape[1:])
        tensors["audio"] = torch.cat((heard, silence))
    if mask is not None:
        tensors["face_mask"] = latent_masks(checked_mask(mask), *latents.shape[-2:])
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def clip_file(folder: str, name: str) -> Path:
    """Where a new clip is written: a folder inside the host's input folder.

    Raises:
        BadPlace: a name that leads out of it, or that is taken.
    """
    stem = name.strip().removesuffix(".safetensors")
    if not stem or stem != Path(stem).name or any(sign in stem for sign in '/\\:*?"<>|') or stem.startswith("."):
        raise BadPlace("name of the clip", expected="a plain name", found=repr(name), cure="use letters and numbers")
    path = training_folder(folder) / f"{stem}.safetensors"
    if path.exists():
        raise BadPlace(path.name, expected="a new name", found="a file of that name", cure="choose another name")
    return path


def _scaled(latents: Tensor) -> Tensor:
    return latents * LATENT_SCALE


def _words(conditioning: Any) -> Mapping[str, Tensor]:
    states, told = conditioning[0]
    pooled = told.get("pooled_output")
    if len(conditioning) != 1 or states.ndim != 3 or states.shape[0] != 1 or pooled is None:
        raise LikenessError(
            "prompt of the clip",
            expected="one conditioning of one prompt, with a pooled text",
            found=f"{len(conditioning)} of the shape {tuple(states.shape)}",
            cure="connect a prompt from 'Encode Avatar Prompt'",
        )
    mask = told.get(TEXT_MASK, torch.ones(1, states.shape[1]))
    parts = {"text_states": states, "text_mask": mask, "pooled": pooled}
    return {name: part[0].detach().to("cpu", torch.float32) for name, part in parts.items()}
