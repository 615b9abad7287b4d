"""Margin softmax: the ArcFace margin on the cosine of the right class (Deng et al. 2019, CVPR).

The margin's curve is that of pytorch-metric-learning (MIT), an optional package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..packages import metric_losses

SCALE = 64.0
MARGIN = 0.5


def cosines(embeddings: Tensor, centres: Tensor) -> Tensor:
    """Cosine of each embedding (B, D) with each class centre (K, D): (B, K)."""
    return functional.normalize(embeddings) @ functional.normalize(centres).T


def arcface_logits(cosine: Tensor, labels: Tensor, margin: float = MARGIN, scale: float = SCALE) -> Tensor:
    """Logits with the margin in the angle of the right class; gradients flow through the margin (TopoFR's form).

    Args:
        cosine: (B, K).
        labels: (B,) integers.
        margin: radians added to the angle; beyond the half turn the curve goes on as a straight line.
        scale: of all logits.

    Raises:
        MissingPackage: pytorch-metric-learning is not installed.
    """
    curve = metric_losses().ArcFaceLoss(1, 1, margin=math.degrees(margin), scale=scale)
    return scale * _with_target(cosine, labels, curve.modify_cosine_of_target_classes(_target(cosine, labels)))


def constant_margin_logits(cosine: Tensor, labels: Tensor, margin: float = MARGIN, scale: float = SCALE) -> Tensor:
    """Logits with the margin as a constant: its own derivative is skipped (TransFace, as insightface trains).

    No kept library has this form; it is ``cos(arccos(c) + margin)`` computed without gradient.

    Args:
        cosine: (B, K).
        labels: (B,) integers.
        margin: radians added to the angle.
        scale: of all logits.
    """
    bounded = cosine.clamp(-1, 1)
    target = _target(bounded, labels)
    shift = (torch.cos(target.detach().arccos() + margin) - target).detach()
    return scale * _with_target(bounded, labels, target + shift)


def _target(cosine: Tensor, labels: Tensor) -> Tensor:
    return cosine.gather(1, labels[:, None]).squeeze(1)


def _with_target(cosine: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    return cosine.scatter(1, labels[:, None], target[:, None])
