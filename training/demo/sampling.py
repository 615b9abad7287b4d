"""Portraits from the small base model without a host: DDIM with guidance, with or without a face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...adapters.families.restorerid.schedule import TRAINED, alphas_cumprod
from ..drawn_faces import Attributes
from ..fact.models import FactModel
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
    """Latents (B, 4, h, w) of portraits with given attributes.

    Args:
        base: the base model.
        attributes: B rows.
        noise: (B, 4, h, w) of unit variance.
        fact: an adapter attached to the base; None samples the plain model.
        conditions: (B, S, D) tokens of the reference faces.
        strength: of the adapter.
        steps: of DDIM (Song et al. 2021), without noise.
        guidance: of prompt and face together; the negative rows get no prompt and the projection of zeros.
    """
    shares = alphas_cumprod().float()
    times = torch.linspace(TRAINED - 1, 0, steps + 1)[:-1].round().long().tolist()
    with torch.no_grad():
        told = base.prompt(attributes)
        text = torch.cat([torch.zeros_like(told), told])
        tokens = None
        if fact is not None and conditions is not None:
            tokens = fact.tokens(torch.cat([torch.zeros_like(conditions), conditions]).float())
        x = noise
        for number, time in enumerate(times):
            predicted = _predict(base, fact, x, time, text, tokens, strength)
            without, given = predicted.chunk(2)
            eps = without + guidance * (given - without)
            share = shares[time]
            clean = (x - (1 - share).sqrt() * eps) / share.sqrt()
            after = shares[times[number + 1]] if number + 1 < steps else torch.ones(())
            x = after.sqrt() * clean + (1 - after).sqrt() * eps
    return x


def _predict(
    base: BaseModel, fact: FactModel | None, x: Tensor, time: int, text: Tensor, tokens: Tensor | None, strength: float
) -> Tensor:
    doubled, times = torch.cat([x, x]), torch.full((2 * len(x),), time)
    if fact is None:
        return base(doubled, times, text)
    with fact.attached.reading(tokens, strength):
        predicted = base(doubled, times, text)
    fact.attached.taken_increments()
    return predicted


def start_noise(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Noise (B, 4, h, w) for pictures of ``size``."""
    return torch.randn(count, LATENT_CHANNELS, size // 8, size // 8, generator=generator)


def pictures(autoencoder: Autoencoder, latents: Tensor, together: int = 64) -> Tensor:
    """(B, H, W, 3) of latents."""
    parts: Sequence[Tensor] = latents.split(together)
    with torch.no_grad():
        return torch.cat([autoencoder.decode(part) for part in parts])
