"""The official sampling tables of RestorerID: which noise levels it steps through, and which timesteps it tells.

Follows ``RestorerID``'s DDIM sampler and its respacing of timesteps. Quirk its numbers depend on: for S steps the noise
levels are taken at every ``1000 // S``-th training step, while the UNet and the structure encoder are told timesteps
spread evenly over 0..999. The last iteration of the official loop leaves the latent as it is, so a run has S - 1 steps
and its result still carries the noise of the first level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TRAINED = 1000
BETAS = (0.00085, 0.012)
STEPS = 50
GUIDANCE = 4.0


def alphas_cumprod() -> Tensor:
    """Share of the signal at each training step, (1000,) float64."""
    first, last = (beta**0.5 for beta in BETAS)
    betas = torch.linspace(first, last, TRAINED, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def alpha_indices(steps: int) -> list[int]:
    """Training steps whose noise levels are used, rising; the first ``steps`` where more would fit."""
    return list(range(0, TRAINED, TRAINED // steps))[:steps]


def model_timesteps(steps: int) -> list[int]:
    """Timesteps told to the networks, rising; added up and rounded as the official respacing does."""
    stride = (TRAINED - 1) / (steps - 1) if steps > 1 else 1.0
    told, position = [], 0.0
    for _ in range(steps):
        told.append(round(position))
        position += stride
    return told


@dataclass(frozen=True, eq=False)
class Tables:
    """The DDIM table of S steps, rising, float64.

    Attributes:
        alphas: (S,) share of the signal before a step.
        alphas_prev: (S,) share after it.
        sigmas: (S,) noise added in it.
        timesteps: S timesteps told to the networks.
    """

    alphas: Tensor
    alphas_prev: Tensor
    sigmas: Tensor
    timesteps: list[int]

    @property
    def levels(self) -> Tensor:
        """(S,) noise levels ``sqrt((1 - alpha) / alpha)``, rising: what k-diffusion samplers call sigma."""
        return ((1 - self.alphas) / self.alphas).sqrt()


def tables(steps: int, eta: float = 1.0) -> Tables:
    """The official tables for 1..1000 steps."""
    known = alphas_cumprod()
    alphas = known[alpha_indices(steps)]
    previous = torch.cat([known[:1], alphas[:-1]])
    sigmas = eta * ((1 - previous) / (1 - alphas) * (1 - alphas / previous)).sqrt()
    return Tables(alphas, previous, sigmas, model_timesteps(steps))
