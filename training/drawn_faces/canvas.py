"""A batch of pictures painted layer by layer, and the share of every region in every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .regions import REGIONS

Box = tuple[slice, slice]


@dataclass(eq=False)
class Canvas:
    """B pictures under work.

    Attributes:
        images: (B, 3, H, W).
        scale: (B, 1, 1) pixels of a half head, which turn distances into coverage.
    """

    images: Tensor
    scale: Tensor
    _layers: list[tuple[str, Box, Tensor]] = field(default_factory=list)

    def coverage(self, distance: Tensor) -> Tensor:
        """Part of each pixel inside a shape: distance (B, R, C) in half heads, negative inside; overwritten."""
        return distance.mul_(-self.scale).add_(0.5).clamp_(0, 1)

    def paint(self, coverage: Tensor, colour: Tensor, box: Box, region: str = "") -> None:
        """Lay a colour over a box of the pictures.

        Args:
            coverage: (B, R, C), 0..1.
            colour: (B, 3), 0..1.
            box: the rows and columns that ``coverage`` stands for.
            region: what the layer is part of; none for a layer that only colours the region below.
        """
        self.images[:, :, box[0], box[1]].lerp_(colour[:, :, None, None], coverage[:, None])
        if region:
            self._layers.append((region, box, coverage))

    def shade(self, channel: int, factor: Tensor, box: Box) -> None:
        """Multiply one colour channel of a box by factors (B, R, C)."""
        self.images[:, channel, box[0], box[1]].mul_(factor)

    def regions(self, shares: Tensor) -> None:
        """Write into ``shares`` (B, 7, H, W) how much of each pixel belongs to each of `REGIONS`; sums to 1."""
        shares.zero_()
        # What the layers above leave of each pixel goes to the background in the end, so its plane is used for it.
        left = shares[:, REGIONS.index("background")].fill_(1)
        for region, (rows, columns), coverage in reversed(self._layers):
            seen = coverage * left[:, rows, columns]
            shares[:, REGIONS.index(region), rows, columns].add_(seen)
            left[:, rows, columns].sub_(seen)


def box_around(points: Tensor, margin: Tensor, size: int) -> Box:
    """Rows and columns of pictures of ``size`` that hold all points (B, K, 2) with a margin (B,), both in pixels."""
    low = (points - margin[:, None, None]).amin(dim=(0, 1)).floor().tolist()
    high = (points + margin[:, None, None]).amax(dim=(0, 1)).ceil().tolist()
    columns, rows = (_between(int(first), int(last), size) for first, last in zip(low, high, strict=True))
    return rows, columns


def _between(first: int, last: int, size: int) -> slice:
    first = min(max(first, 0), size - 1)
    return slice(first, max(first + 1, min(last + 1, size)))
