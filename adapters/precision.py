"""Identities as Gaussians: fusion by precision, and how likely two of them are one (Xie et al., PRCL, arXiv 2210.14670;
the score is that of Shi and Jain, "Probabilistic Face Embeddings", ICCV 2019).

A doubtful photo has a large variance and pulls the fused embedding less.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..faces.typed import typed
from .errors import IdentityMismatch

LEAST_QUALITY = 0.05


def qualities_from_text(text: str) -> list[float]:
    """Numbers from a text, separated by commas, spaces or new lines; none for an empty text.

    Raises:
        IdentityMismatch: something that is not a number.
    """
    words = typed(text).replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise IdentityMismatch(
            "qualities",
            expected="one number for each face, separated by commas",
            found=repr(text.strip()[:80]),
            cure="connect the qualities of 'Face Quality' or write numbers such as 0.9, 0.4",
        ) from error


def variances_of(qualities: Tensor) -> Tensor:
    """Variances ``1 / max(quality, 0.05)`` of any shape: the better, the surer."""
    return 1 / qualities.clamp(min=LEAST_QUALITY)


def fuse(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """The product of N Gaussians.

    Args:
        means: (N, D), used as they are.
        variances: (N, D) or (N, 1).

    Returns:
        (D,) mean and (D,) or (1,) variance. The variance does not tell how far the means disagree.
    """
    variance = 1 / (1 / variances).sum(dim=0)
    return (variance / variances * means).sum(dim=0), variance


def mutual_likelihood(first: Tensor, second: Tensor, variances: Tensor, others: Tensor) -> Tensor:
    """Log likelihood, up to a constant, that two Gaussians share their value: a similarity that falls with doubt.

    With one variance for all it is an affine function of the cosine.

    Args:
        first: (..., D) means, brought to length 1 here.
        second: means that broadcast with ``first``.
        variances: (..., D) or (..., 1) of ``first``.
        others: the same of ``second``.

    Returns:
        (...,) means over the D dimensions.
    """
    gap = functional.normalize(first, dim=-1) - functional.normalize(second, dim=-1)
    total = variances + others
    return -0.5 * torch.mean(gap.square() / total + total.log(), dim=-1)
