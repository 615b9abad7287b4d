"""Portraits from the small base model without a host, with or without a face."""

from __future__ import annotations

import torch
from torch import Tensor

from ..drawn_faces import Attributes
from ..fact.models import FactModel
from ..fact.preview import preview
from .autoencoder import LATENT_CHANNELS, Autoencoder
from .base import BaseModel

STEPS, GUIDANCE = 20, 2.0


def sample_latents(
    base: BaseModel,
    attributes: Attributes,
    noise: Tensor,
    fact: FactModel | None = None,
    conditions: Tensor | None = None,
    strength: float = 1.0,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Tensor:
    """Latents (B, 4, h, w) of portraits with given attributes; see `fact.preview.preview`."""
    with torch.no_grad():
        text = base.prompt(attributes)
    return preview(base.unet, fact, text, conditions, noise, strength=strength, steps=steps, guidance=guidance)


def start_noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Noise (B, 4, h, w) for pictures of ``size``."""
    return torch.randn(count, LATENT_CHANNELS, size // 8, size // 8, generator=generator)


def pictures(autoencoder: Autoencoder, latents: Tensor, together: int = 64) -> Tensor:
    """(B, H, W, 3) of latents."""
    with torch.no_grad():
        return torch.cat([autoencoder.decode(part) for part in latents.split(together)])
