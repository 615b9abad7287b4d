"""Greedy non-maximum suppression in plain torch, the same on every device and for any number of boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Overlap = Literal["union", "min"]
BLOCK = 1024


def nms(
    boxes: Tensor, scores: Tensor, threshold: float, *, overlap: Overlap = "union", plus_one: bool = False
) -> Tensor:
    """Indices of the boxes that survive, best score first.

    Args:
        boxes: (N, 4) ``x1 y1 x2 y2``.
        scores: (N,); ties keep their input order.
        threshold: a box overlapping a better kept one by more than this is dropped.
        overlap: intersection over union, or over the smaller area.
        plus_one: count pixels (``x2 - x1 + 1``), as the older official codes do.

    Returns:
        (K,) int64 on the device of ``boxes``.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    kept = order[:0]
    for block in order.split(BLOCK):
        if len(kept):
            beaten = (_overlaps(boxes[kept], boxes[block], overlap, plus_one) > threshold).any(dim=0)
            block = block[~beaten]
        inside = torch.triu(_overlaps(boxes[block], boxes[block], overlap, plus_one) > threshold, diagonal=1)
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


def _overlaps(a: Tensor, b: Tensor, overlap: Overlap, plus_one: bool) -> Tensor:
    """Pairwise overlap (N, M) of boxes (N, 4) and (M, 4)."""
    extra = 1.0 if plus_one else 0.0
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low + extra).clamp(min=0).prod(dim=2)
    area_a = (a[:, 2:] - a[:, :2] + extra).prod(dim=1)[:, None]
    area_b = (b[:, 2:] - b[:, :2] + extra).prod(dim=1)[None, :]
    whole = area_a + area_b - shared if overlap == "union" else torch.minimum(area_a, area_b)
    return shared / whole
