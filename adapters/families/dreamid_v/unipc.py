"""DreamID-V's sampler: UniPC of order 2 (bh2) for flow models, with the authors' noise levels.

Follows ``FlowUniPCMultistepScheduler`` as Wan and DreamID-V use it (Zhao et al. 2023, arXiv:2302.04867). Quirk: the
network is told whole timesteps, cut off and not rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TRAINED = 1000
SHIFT = 5.0
_FIRST = 1 - 1 / TRAINED

# (x, number of the step) -> velocity of the same shape.
Velocity = Callable[[Tensor, int], Tensor]


def noise_levels(steps: int, shift: float = SHIFT) -> Tensor:
    """Falling noise levels (steps + 1,) float32, the last one 0."""
    even = torch.linspace(_FIRST, 0, steps + 1, dtype=torch.float64)[:-1]
    levels = shift * even / (1 + (shift - 1) * even)
    return torch.cat((levels, levels.new_zeros(1))).float()


def told_timesteps(levels: Tensor) -> Tensor:
    """The whole timesteps (S,) that the network is told at noise levels (S + 1,)."""
    return (levels[:-1].double() * TRAINED).floor()


def sample(x: Tensor, levels: Tensor, velocity: Velocity, seen: Callable[[int, Tensor, Tensor], None]) -> Tensor:
    """Walk from noise to a clean latent.

    Args:
        x: noise of any shape.
        levels: falling noise levels (S + 1,), the last one 0; read once, before the first step.
        velocity: the network.
        seen: called after each step with its number, the clean latent predicted in it, and the new ``x``.
    """
    sigmas = [float(level) for level in levels.double()]
    steps = len(sigmas) - 1
    before: Tensor | None = None
    clean: list[Tensor] = []
    order = 1
    for number in range(steps):
        found = x - sigmas[number] * velocity(x, number)
        if before is not None:
            x = _corrected(before, clean, found, sigmas[max(0, number - 2) : number + 1], order)
        clean = [*clean[-1:], found]
        order = 1 if number == 0 or number == steps - 1 else 2
        before = x
        x = _predicted(x, clean, sigmas[max(0, number - 1) : number + 2], order)
        seen(number, found, x)
    return x


def _lambda(sigma: float) -> float:
    return math.log1p(-sigma) - math.log(sigma)


def _predicted(x: Tensor, clean: list[Tensor], sigmas: list[float], order: int) -> Tensor:
    """The next x; ``sigmas`` end with the present level and the next one."""
    now, then = sigmas[-2:]
    if then == 0:
        return clean[-1]
    h = _lambda(then) - _lambda(now)
    growth = math.expm1(-h)
    moved = then / now * x - (1 - then) * growth * clean[-1]
    if order == 1:
        return moved
    ratio = (_lambda(sigmas[-3]) - _lambda(now)) / h
    return moved - (1 - then) * growth * 0.5 * (clean[-2] - clean[-1]) / ratio


def _corrected(x: Tensor, clean: list[Tensor], found: Tensor, sigmas: list[float], order: int) -> Tensor:
    """The present x once more, from the one before it (``x``) and what the network found since."""
    now, then = sigmas[-2:]
    h = _lambda(then) - _lambda(now)
    growth = math.expm1(-h)
    moved = then / now * x - (1 - then) * growth * clean[-1]
    step = found - clean[-1]
    if order == 1:
        return moved - (1 - then) * growth * 0.5 * step
    ratio = (_lambda(sigmas[-3]) - _lambda(now)) / h
    earlier, present = _weights(h, growth, ratio)
    slope = (clean[-2] - clean[-1]) / ratio
    return moved - (1 - then) * growth * (earlier * slope + present * step)


def _weights(h: float, growth: float, ratio: float) -> tuple[float, float]:
    """The two weights of the corrector of order 2: those of ``[[1, 1], [ratio, 1]] w = b``."""
    first = growth / -h - 1
    second = first / -h - 0.5
    b0, b1 = first / growth, 2 * second / growth
    earlier = (b0 - b1) / (1 - ratio)
    return earlier, b0 - earlier
