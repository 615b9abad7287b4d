"""Boxes ``x1 y1 x2 y2`` in pixels: area, overlap, suppression, clipping, growing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Overlap = Literal["union", "min"]
# Boxes that suppression compares at a time, which bounds its memory.
BLOCK = 1024


def area(boxes: Tensor, inclusive: bool = False) -> Tensor:
    """Return the areas (N,) of boxes (N, 4); boxes turned inside out have none.

    Args:
        inclusive: count the last row and column too (one added to each side), as RetinaFace and SCRFD do.
    """
    sides = (boxes[:, 2:] - boxes[:, :2] + float(inclusive)).clamp(min=0)
    return sides[:, 0] * sides[:, 1]


def iou(first: Tensor, second: Tensor, inclusive: bool = False) -> Tensor:
    """Return intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where both are empty."""
    return overlaps(first, second, "union", inclusive)


def overlaps(first: Tensor, second: Tensor, overlap: Overlap, inclusive: bool = False) -> Tensor:
    """Return the intersection (N, M) of boxes (N, 4) and (M, 4) over their union, or over the smaller area.

    Where that is empty, the overlap is 0.
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (high - low + float(inclusive)).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    areas = area(first, inclusive)[:, None], area(second, inclusive)[None]
    whole = areas[0] + areas[1] - shared if overlap == "union" else torch.minimum(*areas)
    return torch.where(whole > 0, shared / whole.clamp(min=torch.finfo(whole.dtype).tiny), torch.zeros_like(whole))


def nms(
    boxes: Tensor, scores: Tensor, threshold: float, *, overlap: Overlap = "union", inclusive: bool = False
) -> Tensor:
    """Return the indices (K,) int64 of the boxes that greedy non-maximum suppression keeps, best score first.

    A box falls when its overlap with a better kept one is greater than ``threshold``; of equal scores the earlier
    box wins. Plain torch, the same on every device and for any number of boxes.

    Args:
        boxes: (N, 4) pixels.
        scores: (N,).
        threshold: the greatest overlap that is left standing.
        overlap: intersection over union, or over the smaller area.
        inclusive: areas with one pixel added to each side (RetinaFace, SCRFD).
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept = order[:0]
    for block in order.split(BLOCK):
        if len(kept):
            beaten = (overlaps(boxes[kept], boxes[block], overlap, inclusive) > threshold).any(dim=0)
            block = block[~beaten]
        inside = torch.triu(overlaps(boxes[block], boxes[block], overlap, inclusive) > threshold, diagonal=1)
        kept = torch.cat([kept, block[_greedy(inside)]])
    return kept


def _greedy(beats: Tensor) -> Tensor:
    """Survivors (N,) bool of the strictly upper triangular relation (N, N) "row overlaps column".

    The greedy choice is the only fixed point of "kept when no kept better box overlaps it"; repeating the rule
    settles row after row and needs as many rounds as the longest chain of overlaps, not one per box.
    """
    keep = torch.ones(beats.shape[0], dtype=torch.bool, device=beats.device)
    while True:
        again = ~(beats & keep[:, None]).any(dim=0)
        if torch.equal(again, keep):
            return keep
        keep = again


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
