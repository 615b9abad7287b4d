"""Coordinates of pixels: on the head, on the face, and how far the head's outline is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import Box, seen_from, within
from .geometry import Pose
from .rows import Rows


@dataclass(frozen=True, eq=False)
class Axes(Rows):
    """Head coordinates of all pixels, kept as what a column and what a row adds to them.

    Attributes:
        across: (B, 1, W) half heads from the head's middle, in the picture.
        down: (B, H, 1) the same.
        x_columns, y_columns: (B, 1, W).
        x_rows, y_rows: (B, H, 1).
    """

    across: Tensor
    down: Tensor
    x_columns: Tensor
    x_rows: Tensor
    y_columns: Tensor
    y_rows: Tensor

    @staticmethod
    def of(pose: Pose) -> Axes:
        """The axes of whole pictures."""
        pixels = torch.arange(pose.size, dtype=torch.float32) + 0.5
        scale, sin, cos = (one[:, None, None] for one in (pose.scale, pose.sin[:, 2], pose.cos[:, 2]))
        across = (pixels[None, None, :] - pose.centre[:, :1, None]) / scale
        down = (pixels[None, :, None] - pose.centre[:, 1:, None]) / scale
        return Axes(across, down, across * cos, down * sin, -across * sin, down * cos)

    def part(self, box: Box) -> Axes:
        """The axes of a box."""
        rows, columns = box
        return Axes(
            self.across[:, :, columns],
            self.down[:, rows],
            self.x_columns[:, :, columns],
            self.x_rows[:, rows],
            self.y_columns[:, :, columns],
            self.y_rows[:, rows],
        )

    def x(self) -> Tensor:
        """(B, R, C)."""
        return self.x_columns + self.x_rows

    def y(self) -> Tensor:
        """(B, R, C)."""
        return self.y_columns + self.y_rows


@dataclass(frozen=True, eq=False)
class FaceGrid:
    """A box of B pictures and which points of the face its pixels show.

    Attributes:
        box: rows and columns.
        u, v: face coordinates (B, R, C).
        inside: coverage of the head (B, R, C).
    """

    box: Box
    u: Tensor
    v: Tensor
    inside: Tensor

    def part(self, box: Box) -> FaceGrid:
        """The part of this grid inside a box."""
        kept = within(box, self.box)
        rows, columns = seen_from(kept, self.box)
        return FaceGrid(kept, self.u[:, rows, columns], self.v[:, rows, columns], self.inside[:, rows, columns])


@dataclass(frozen=True, eq=False)
class Outline:
    """The head's outline before its size: what distances to it, and to larger ones, are made of.

    Attributes:
        box: rows and columns.
        across, up, down: (B, R, C) squares of the three directions.
    """

    box: Box
    across: Tensor
    up: Tensor
    down: Tensor

    def part(self, box: Box) -> Outline:
        """The part of the outline inside a box."""
        kept = within(box, self.box)
        rows, columns = seen_from(kept, self.box)
        return Outline(kept, self.across[:, rows, columns], self.up[:, rows, columns], self.down[:, rows, columns])

    def radius(self, width: Tensor, crown: Tensor) -> Tensor:
        """Distance from the middle (B, R, C), 1 on the outline; width, crown: squares of 1 / half width and height."""
        return (self.across * width).add_(self.down).addcmul_(self.up, crown).sqrt_()
