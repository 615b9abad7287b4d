"""DreamID's pictures: what sizes fit, and their latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..faces.errors import BadImage
from ..faces.images import as_rgb
from .kept import itself
from .loaded import LoadedAdapter
from .reference_features import tensor_digest


def check_pictures(targets: Tensor, source: Tensor) -> None:
    """Targets of a multiple of 64 pixels, and one source.

    Raises:
        BadImage: anything else.
    """
    if len(source) != 1:
        raise BadImage(
            "DreamID source", expected="one picture", found=f"{len(source)}", cure="swap one person at a time"
        )
    for what, pictures in (("target", targets), ("source", source)):
        height, width = (int(side) for side in pictures.shape[1:3])
        if min(height, width) < 64 or height % 64 or width % 64:
            raise BadImage(
                f"DreamID {what}",
                expected="sides of a multiple of 64 pixels, officially 512",
                found=f"{width} x {height}",
                cure="cut the face out with 'Crop Faces' at 512 pixels",
            )


def swap_latents(loaded: LoadedAdapter, vae: Any, pictures: Tensor) -> Tensor:
    """Latents of pictures, encoded once for as long as they are in use."""
    key = ("latents", itself(vae), tensor_digest(pictures))
    return loaded.made(key, lambda: _encoded(vae, pictures), of=pictures)


def _encoded(vae: Any, pictures: Tensor) -> Tensor:
    """Latents as a VAE of the base model gives them.

    Raises:
        BaseModelMismatch: a VAE of another base model.
    """
    with torch.inference_mode():
        latents: Tensor = vae.encode(as_rgb(pictures))
    wanted = (4, pictures.shape[1] // 8, pictures.shape[2] // 8)
    if tuple(latents.shape[1:]) != wanted:
        raise BaseModelMismatch(
            "VAE for DreamID",
            expected="latents (B, 4, H/8, W/8), as SD1.x and SD2.x have",
            found=f"{tuple(latents.shape)}",
            cure="connect the VAE of the base model (Stable Diffusion 2.x)",
        )
    return plain_copy(latents)


def plain_copy(tensor: Tensor) -> Tensor:
    """A copy that may outlive the host's inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()
