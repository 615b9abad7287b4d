"""The deterministic schedule of AM-Adapter's pipeline: steps spaced evenly up to 999, each leading 1000 // steps back.

Follows the settings of ``DDIMScheduler`` in its inference code (linspace spacing, eta 0). The quirk: 20 steps lie 52.6
apart and lead only 50 back, so a latent is a little less noisy than the time the network is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

TRAINED = 1000


@dataclass(frozen=True)
class Move:
    """One step: the time the network is told, and the shares of signal (alpha bar) at that time and at the next."""

    time: int
    alpha: float
    alpha_next: float


def times(steps: int) -> list[int]:
    """The times of a run of ``steps`` steps, noisiest first: 999, 946, ..., 53, 0 for 20."""
    return [int(time) for time in np.linspace(0, TRAINED - 1, steps).round()[::-1]]


def moves(steps: int, alphas: Tensor) -> list[Move]:
    """The steps of a run, noisiest first; ``alphas`` (1000,) is alpha bar by time; its first entry counts below 0."""
    shares = [float(alpha) for alpha in alphas]
    back = TRAINED // steps
    return [Move(time, shares[time], shares[max(time - back, 0)]) for time in times(steps)]


def ddim_step(latent: Tensor, noise: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """Take a latent with predicted ``noise`` from one share of signal to another, in either direction."""
    clean = (latent - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    return alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise
