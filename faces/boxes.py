"""Boxes ``x1 y1 x2 y2`` in pixels: area, overlap, suppression, clipping, growing."""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor, inclusive: bool = False) -> Tensor:
    """Return the areas (N,) of boxes (N, 4); boxes turned inside out have none.

    Args:
        inclusive: count the last row and column too (one added to each side), as RetinaFace and SCRFD do.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + float(inclusive)).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def iou(first: Tensor, second: Tensor, inclusive: bool = False) -> Tensor:
    """Return intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where both are empty."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (high - low + float(inclusive)).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(first, inclusive)[:, None] + area(second, inclusive)[None] - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), torch.zeros_like(union))


def nms(boxes: Tensor, scores: Tensor, threshold: float, inclusive: bool = False) -> Tensor:
    """Return the indices (K,) int64 of the boxes that greedy non-maximum suppression keeps, best score first.

    A box falls when its overlap with a better kept one is greater than ``threshold``; of equal scores the earlier
    box wins.

    Args:
        boxes: (N, 4) pixels.
        scores: (N,).
        inclusive: areas with one pixel added to each side (RetinaFace, SCRFD).
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept: list[Tensor] = []
    while order.numel():
        best, rest = order[0], order[1:]
        kept.append(best)
        overlap = iou(boxes[best][None], boxes[rest], inclusive)[0]
        order = rest[overlap <= threshold]
    return torch.stack(kept) if kept else order


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return boxes (N, 4) cut to a picture of ``height`` x ``width``."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def scale(boxes: Tensor, factor: float) -> Tensor:
    """Return boxes (N, 4) grown or shrunk about their own centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def square(boxes: Tensor) -> Tensor:
    """Return the square boxes (N, 4) with the longer side of each box, about their own centres."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def box_of_points(points: Tensor) -> Tensor:
    """Return the smallest boxes (..., 4) that hold points (..., P, 2)."""
    return torch.cat([points.amin(dim=-2), points.amax(dim=-2)], dim=-1)
