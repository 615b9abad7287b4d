"""Boxes of pixels that hold a part of every picture of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

Box = tuple[slice, slice]


def bounds(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """(..., 4) what holds a part of each picture, in pixels, of its edges (...).

    Right and bottom carry a minus sign: the smallest of several bounds holds all of them, the largest is their overlap.
    """
    return torch.stack([left, top, -right, -bottom], dim=-1)


def boxes(parts: Tensor, size: int) -> list[Box]:
    """For each part the box that holds it in all B pictures of ``size``; parts: bounds (P, B, 4)."""
    found = parts.amin(dim=1).floor().tolist()
    return [(_between(top, -bottom, size), _between(left, -right, size)) for left, top, right, bottom in found]


def within(box: Box, outer: Box) -> Box:
    """The part of a box inside another one, never empty."""
    return _within(box[0], outer[0]), _within(box[1], outer[1])


def seen_from(box: Box, outer: Box) -> Box:
    """A box counted from the corner of another one."""
    rows, columns = (
        slice(one.start - around.start, one.stop - around.start) for one, around in zip(box, outer, strict=True)
    )
    return rows, columns


def _within(one: slice, outer: slice) -> slice:
    first = min(max(one.start, outer.start), outer.stop - 1)
    return slice(first, max(first + 1, min(one.stop, outer.stop)))


def _between(first: float, last: float, size: int) -> slice:
    return _within(slice(int(first), int(last)), slice(0, size))
