"""Restoration in one step: the aligned latent is taken for the noisy latent of one timestep, and denoised once.

The paper samples from the aligned latent without further conditioning; that one step at a fixed timestep is enough is
what its closest open relative does (OSDFace, Wang et al. 2025: timestep 399).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alpha_bar(t: int) -> float:
    """Share of the picture's variance at timestep ``t`` (0..999) of Stable Diffusion 1.x and 2.x."""
    betas = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000, dtype=torch.float64).square()
    return float((1 - betas).cumprod(dim=0)[t])


def sigma_of(share: float) -> float:
    """The noise level, in units of the clean latent, at that share of variance."""
    return math.sqrt((1 - share) / share)


def clean_latent(latents: Tensor, output: Tensor, share: float, prediction: str = "eps") -> Tensor:
    """The clean latent that a model's output for ``latents`` (B, 4, H, W) stands for.

    Args:
        latents: what the model saw, of unit variance.
        output: what it gave.
        share: see `alpha_bar`.
        prediction: ``"eps"`` or ``"v"``.
    """
    if prediction == "v":
        return math.sqrt(share) * latents - math.sqrt(1 - share) * output
    return (latents - math.sqrt(1 - share) * output) / math.sqrt(share)


def sampler_start(latents: Tensor, sigma: float) -> Tensor:
    """Where a sampler must start so that its first call gives the model ``latents``.

    Samplers divide by sqrt(1 + sigma**2) before they call the model; one Euler step to 0 then ends at `clean_latent`.
    """
    return latents * math.sqrt(1 + sigma * sigma)
