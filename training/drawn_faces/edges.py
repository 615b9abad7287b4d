"""How shapes end: within one pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Rows

# So far outside that nothing is seen.
AWAY = 100.0


@dataclass(frozen=True, eq=False)
class Edge(Rows):
    """Where and how fast the coverage of pixels by a shape falls, along values that grow outwards.

    Attributes:
        end: (B, 1, 1) the value from which on nothing is covered.
        slope: (B, 1, 1) change of coverage along the value, below zero.
    """

    end: Tensor
    slope: Tensor

    @staticmethod
    def of(scale: Tensor, at: Tensor | float, length: Tensor | float = 1.0) -> Edge:
        """The edge at a value.

        Args:
            scale: (B, 1, 1) pixels of a half head.
            at: the value of the edge itself, where pixels are half covered.
            length: half heads for which the value grows by 1.
        """
        slope = scale * length
        return Edge(at + 0.5 / slope, -slope)

    def only(self, seen: Tensor) -> Edge:
        """The same for those who have the shape, (B, 1, 1) booleans; the others show nothing of it."""
        return Edge(self.end.masked_fill(~seen, -AWAY), self.slope)

    def ramp(self, values: Tensor) -> Tensor:
        """Coverage (B, R, C) before it ends at 0 and 1; values are overwritten."""
        return values.sub_(self.end).mul_(self.slope)

    def coverage(self, values: Tensor) -> Tensor:
        """Part of each pixel inside the shape (B, R, C); values are overwritten."""
        return self.ramp(values).clamp_(0, 1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Coverage where two shapes overlap, of their ramps; the first is overwritten."""
    return torch.minimum(first, second, out=first).clamp_(0, 1)
