"""Light on heads and hair."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import Box
from .grids import Axes
from .page import Page
from .people import People
from .rows import Rows


@dataclass(frozen=True, eq=False)
class Light(Rows):
    """Lambert's law on an ellipsoid.

    Attributes:
        width, height: (B, 1, 1) half of the ellipsoid, in half heads.
        across, down: (B, 1, 1) where the light comes from.
        strength, warmth: (B, 1, 1); the strength is below zero.
    """

    width: Tensor
    height: Tensor
    across: Tensor
    down: Tensor
    strength: Tensor
    warmth: Tensor

    @staticmethod
    def of(people: People) -> Light:
        """The light on B faces."""
        angle = people["light_angle"] * (math.pi / 180)
        width = people["head_width"] + 0.15
        strength, warmth = people["light_strength"] * -0.75, people["light_warmth"] * (0.10 / 0.75)
        return Light(width, torch.full_like(width, 1.15), 0.8 * angle.cos(), 0.8 * angle.sin(), strength, warmth)

    def shade(self, page: Page, box: Box, away: Tensor) -> None:
        """Light the head and the hair; away: (B, R, C) minus their share of each pixel; overwritten."""
        strength = away.mul_(self.strength)
        factor = self._falling(page.axes.part(box)).mul_(strength).add_(1)
        warm = strength.mul_(self.warmth)
        page.canvas.shade(0, torch.addcmul(factor, factor, warm), box)
        page.canvas.shade(1, factor, box)
        page.canvas.shade(2, factor.addcmul_(factor, warm, value=-1), box)

    def _falling(self, here: Axes) -> Tensor:
        """How much more light (B, R, C) falls on each place than on an average one."""
        # All of it is a sum of what a column and a row give and one product of both, so that whole planes stay few.
        x_columns, x_rows = here.x_columns / self.width, here.x_rows / self.width
        y_columns, y_rows = here.y_columns / self.height, here.y_rows / self.height
        columns = (x_columns.square() + y_columns.square()).neg_().add_(1)
        rows = (x_rows.square() + y_rows.square()).neg_()
        both = (columns + rows).addcmul_(-2 * x_columns, x_rows).addcmul_(-2 * y_columns, y_rows)
        facing = both.clamp_(min=0).sqrt_().mul_(0.45)
        facing.add_(x_columns * self.across + y_columns * self.down)
        facing.add_((x_rows * self.across + y_rows * self.down).sub_(0.15))
        return facing.clamp_(-1.05, 0.85)
