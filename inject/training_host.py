"""What the training nodes need of the host: where files go, and its models as plain tensors and functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from .host import model_management
from .mean_latent import encode_mean
from .training_places import BadPlace, adapter_file

# SD1.5's factor between latents of its VAE and of its UNet.
LATENT_SCALE = 0.18215
PREVIEW_SIDE = 512


def training_device() -> torch.device:
    """Where the host computes."""
    found: torch.device = model_management().get_torch_device()
    return found


def trained_file(name: str, folder: str, resume: bool) -> tuple[Path, Path]:
    """The file that a run writes and the state beside it.

    Args:
        name: a plain name.
        folder: ``face_adapters`` or ``face_encoders``.
        resume: whether a stopped run of that name goes on.

    Raises:
        BadPlace: not a plain name, a file that belongs to no state, or a state that is not to go on.
    """
    path = adapter_file(name, True, folder)
    state = path.with_suffix(".training_state")
    if path.exists() and not (resume and state.is_file()):
        cure = "choose another name" if not state.is_file() else "choose another name, or set resume"
        raise BadPlace(path.name, expected="a new name", found="a file of that name", cure=cure)
    if state.exists() and not resume:
        cure = "set resume, or choose another name"
        raise BadPlace(path.name, expected="a new name", found="a stopped run of that name", cure=cure)
    return path, state


def unet_tensors(model: Any) -> dict[str, Tensor]:
    """The weights of a MODEL's UNet under their original names; patches on it are not in them."""
    network = getattr(getattr(model, "model", None), "diffusion_model", None)
    if network is None:
        raise BaseModelMismatch(
            "base model", expected="a MODEL of SD1.5", found="another value", cure="connect a checkpoint's MODEL"
        )
    return dict(network.state_dict())


def vae_functions(vae: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Pictures (B, H, W, 3) to the UNet's latents (B, 4, H/8, W/8) and back, by the host's VAE."""

    def encode(pictures: Tensor) -> Tensor:
        return encode_mean(vae, pictures.movedim(-1, 1), "training") * LATENT_SCALE

    def decode(latents: Tensor) -> Tensor:
        with torch.inference_mode():
            pictures: Tensor = vae.decode(latents / LATENT_SCALE)
        return pictures

    return encode, decode


def prompt_of(positive: Any) -> Tensor:
    """(1, T, C) the tokens of a CONDITIONING's first entry."""
    tokens: Tensor = positive[0][0]
    return tokens[:1].detach().float().cpu().clone()
