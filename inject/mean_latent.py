"""Latents without chance: a VAE gives a distribution, of which older hosts take a random sample."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch

_CHANNELS = 4


def encode_mean(vae: Any, pictures: Tensor, what: str) -> Tensor:
    """The mean latents (B, 4, H/8, W/8) of pictures (B, 3, H, W) in 0..1 by the host's VAE, not scaled.

    Args:
        vae: of SD1.x or SD2.x.
        pictures: sides are multiples of 8.
        what: whose VAE it is, for the message.

    Raises:
        BaseModelMismatch: a VAE whose latents have not four channels.
    """
    with torch.inference_mode(), _without_chance(vae):
        latents: Tensor = vae.encode(pictures.movedim(1, -1))
    if latents.ndim != 4 or latents.shape[1] != _CHANNELS:
        raise BaseModelMismatch(
            f"VAE for {what}",
            expected="latents (B, 4, H/8, W/8), as SD1.x and SD2.x have",
            found=f"{tuple(latents.shape)}",
            cure="connect the VAE of an SD1.x or SD2.x model",
        )
    return latents


@contextmanager
def _without_chance(vae: Any) -> Iterator[None]:
    """Have the VAE give its mean; the package host's draws a sample with the global generator."""
    chooser = getattr(getattr(vae, "first_stage_model", None), "regularization", None)
    if getattr(chooser, "sample", False) is not True:
        yield
        return
    chooser.sample = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        chooser.sample = True  # type: ignore[union-attr]
