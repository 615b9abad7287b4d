"""What is seen besides the head: a wall, shoulders and a neck."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .boxes import Box
from .edges import Edge, overlap
from .page import Page, Part
from .people import People, as_planes
from .places import Place, Shape


def wall(people: People) -> Tensor:
    """(B, 3, H, 1) a wall that grows darker downwards."""
    ramp = torch.linspace(1.06, 0.80, people.pose.size)[None, None, :, None]
    return (as_planes(colours.background(people.attributes)) * ramp).clamp_(0, 1)


def _lit(people: People) -> Tensor:
    """(B, 1, 1, 1) body and neck are lit as flat things."""
    angle = people["light_angle"] * (math.pi / 180)
    return (1 + people["light_strength"] * (0.35 * angle.sin() - 0.15))[..., None]


@dataclass(frozen=True, eq=False)
class Shoulders(Part):
    """Shoulders; they do not turn with the head."""

    edge: Edge
    colour: Tensor

    @staticmethod
    def of(people: People) -> Shoulders:
        """The shoulders."""
        colour = (as_planes(colours.clothes(people.attributes)) * _lit(people)).clamp(max=1)
        return Shoulders(Place(Shape.UPRIGHT, -1.45, 2.0 - 0.78, 1.45, 2.0 + 0.78), people.edge(1, 0.9), colour)

    def paint(self, page: Page, box: Box) -> None:
        here = page.axes.part(box)
        radius = (here.across / 1.45).square_() + ((here.down - 2.0) / 0.78).square_()
        page.canvas.paint(self.edge.coverage(radius.sqrt_()), self.colour, box, "body")


@dataclass(frozen=True, eq=False)
class Neck(Part):
    """The neck down to the collar; its upper end is hidden by every head."""

    sides: Edge
    collar: Edge
    colour: Tensor

    @staticmethod
    def of(people: People) -> Neck:
        """The necks."""
        width = 0.45 * people["head_width"] + 0.04
        place = Place(Shape.UPRIGHT, -width, 0.3, width, 1.38)
        return Neck(place, people.edge(width), people.edge(1.38), people.skin * 0.86 * _lit(people))

    def paint(self, page: Page, box: Box) -> None:
        here = page.axes.part(box)
        collar = self.collar.ramp(here.across.square().mul_(0.5) + here.down)
        coverage = overlap(collar, self.sides.ramp(here.across.abs()))
        page.canvas.paint(coverage, self.colour, box, "body")
