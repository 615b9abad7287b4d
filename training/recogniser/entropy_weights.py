"""Entropy-guided hard sample mining (EHSM): samples whose patches say little weigh more.

Dan et al., "TransFace", ICCV 2023; official losses (``partial_fc_exp``).
"""

from __future__ import annotations

import math

from torch import Tensor

LEAST_PROBABILITY = 1e-30


def sample_weights(patch_entropy: Tensor, gamma: float = 1.0) -> Tensor:
    """``1 + exp(-gamma * mean entropy)`` of each sample: (B,), without gradient.

    Args:
        patch_entropy: (B, P) entropy of each patch, as the network gives it.
        gamma: how sharply it acts.
    """
    return 1 + (-gamma * patch_entropy.detach().mean(dim=1)).exp()


def weighted_margin_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean of the weighted negative log probabilities of the right classes.

    The value is bounded by the smallest probability, the gradient is not (``p - 1`` at the right class), as in the
    official distributed cross entropy: the hardest samples go on teaching.

    Args:
        logits: (B, K) margin logits.
        labels: (B,) integers.
        weights: (B,).
    """
    free = -logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    bounded = free.detach().clamp(max=-math.log(LEAST_PROBABILITY))
    return (weights * (free + (bounded - free).detach())).mean()
