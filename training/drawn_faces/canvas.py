"""A batch of pictures painted layer by layer, and the share of every region in every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .boxes import Box
from .regions import REGIONS


@dataclass(eq=False)
class Canvas:
    """B pictures under work.

    Attributes:
        images: (B, 3, H, W).
    """

    images: Tensor
    _layers: list[tuple[str, Box, Tensor]] = field(default_factory=list)

    def paint(self, coverage: Tensor, colour: Tensor, box: Box, region: str = "") -> None:
        """Lay a colour over a box of the pictures.

        Args:
            coverage: (B, R, C), 0..1.
            colour: (B, 3, 1, 1), 0..1.
            box: the rows and columns that ``coverage`` stands for.
            region: what the layer is part of; none for a layer that only colours the region below.
        """
        self.images[:, :, box[0], box[1]].lerp_(colour, coverage[:, None])
        if region:
            self._layers.append((region, box, coverage))

    def shade(self, channel: int, factor: Tensor, box: Box) -> None:
        """Multiply one colour channel of a box by factors (B, R, C)."""
        self.images[:, channel, box[0], box[1]].mul_(factor)

    def regions(self, shares: Tensor) -> None:
        """Write into ``shares`` (B, 7, H, W) how much of each pixel belongs to each of `REGIONS`; sums to 1."""
        planes = dict(zip(REGIONS, shares.unbind(1), strict=True))
        shares[:, 1:].zero_()
        # What the layers above leave of each pixel goes to the background in the end, so its plane is used for it.
        left = planes["background"].fill_(1)
        for region, (rows, columns), coverage in reversed(self._layers):
            below = left[:, rows, columns]
            planes[region][:, rows, columns].addcmul_(coverage, below)
            below.addcmul_(coverage, below, value=-1)
