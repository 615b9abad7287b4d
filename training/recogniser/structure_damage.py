"""Structure damage estimation (SDE): how far a sample stands out of its batch, by a Gaussian-uniform mixture.

Dan et al., "TopoFR", NeurIPS 2024; official ``GUM.gauss_unif`` and the weighting of its training loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_FIRST_SHARE, _LARGEST_SHARE, _FIRST_UNIFORM = 0.1, 0.5, 0.2
_VARIANCE_FLOOR, _ROUNDS, _CLOSE = 1e-3, 1000, 1e-10


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture.

    Attributes:
        clean: (B,) posterior of the Gaussian component.
        share: of the Gaussian component, at most 0.5.
        variance: of the Gaussian component.
    """

    clean: Tensor
    share: float
    variance: float


def signed_entropies(logits: Tensor) -> Tensor:
    """Entropy of each sample's class probabilities (B,), negated at even places so that the mean is near zero."""
    chances = logits.detach().softmax(dim=1)
    entropy = -(chances * (chances + 1e-5).log()).sum(dim=1)
    paired = 2 * (len(entropy) // 2)
    sign = torch.ones_like(entropy)
    sign[:paired:2] = -1
    return entropy * sign


def fit_mixture(values: Tensor) -> Mixture:
    """Fit a Gaussian with mean 0 and a uniform density to standardised values by expectation maximisation.

    Args:
        values: (B,), two or more that differ.
    """
    x = values.detach().double()
    x = (x - x.mean()) / x.std(unbiased=False).clamp(min=1e-12)
    share, variance, uniform, before = _FIRST_SHARE, float(x.square().mean()), _FIRST_UNIFORM, math.inf
    clean = torch.zeros_like(x)
    for _ in range(_ROUNDS):
        spread = variance + _VARIANCE_FLOOR
        density = (-0.5 * x.square() / spread).exp() / math.sqrt(2 * math.pi * spread)
        clean = density * share / (density * share + (1 - share) * uniform)
        total = float(clean.sum())
        variance = float((clean * x.square()).sum()) / total
        share = min(total / len(x), _LARGEST_SHARE)
        uniform = _uniform_density(x, clean, share, total)
        now = float((share * density + (1 - share) * uniform).sum())
        if abs(now - before) < _CLOSE:
            break
        before = now
    return Mixture(clean.to(values.dtype), share, variance)


def _uniform_density(x: Tensor, clean: Tensor, share: float, total: float) -> float:
    outside = (1 - clean) / (1 - share + 1e-10)
    first = float((outside * x).sum()) / total
    second = float((outside * x.square()).sum()) / total
    width = 3 * second - first**2
    return 0.001 if abs(width) < 0.001 else 1 / (2 * math.sqrt(abs(width)) + 1e-10)


def structure_weights(logits: Tensor, labels: Tensor, *, focal: bool = False) -> tuple[Tensor, Tensor]:
    """The two weights (B,) of a sample: damage ``2 - posterior``, and the focal factor.

    Args:
        logits: (B, K) margin logits.
        labels: (B,) integers.
        focal: the paper's ``1 - p``; False as in the published code, where p was truncated to an integer, so that the
            factor is 1 unless p is exactly 1.
    """
    right = logits.detach().softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    damage = 2 - fit_mixture(signed_entropies(logits)).clean
    return damage, 1 - (right if focal else right.trunc())


def structure_damage_loss(logits: Tensor, labels: Tensor, *, focal: bool = False) -> Tensor:
    """Mean of the cross entropies under both weights; gradients flow through the cross entropy only."""
    damage, factor = structure_weights(logits, labels, focal=focal)
    return (damage * factor * functional.cross_entropy(logits, labels, reduction="none")).mean()
