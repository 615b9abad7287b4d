"""Nose and moles, in face coordinates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .boxes import Box
from .edges import Edge, overlap
from .landmarks import nose_height
from .page import Page, Part
from .people import People
from .places import Place, Shape


@dataclass(frozen=True, eq=False)
class Nose(Part):
    """Bridge shadow, tip and nostrils; the tip stands out, so it moves with the yaw.

    Attributes:
        side, height: where the tip is.
        width: half width.
        shadow_strength: of the bridge.
        bridge, back, tip, nostrils: edges.
        shadow_colour, tip_colour, nostril_colour: colours.
    """

    side: Tensor
    height: Tensor
    width: Tensor
    shadow_strength: Tensor
    bridge: Edge
    back: Edge
    tip: Edge
    nostrils: Edge
    shadow_colour: Tensor
    tip_colour: Tensor
    nostril_colour: Tensor

    @staticmethod
    def of(people: People) -> Nose:
        """The noses."""
        width, height, side = people["nose_width"], nose_height(people), people.turn * 0.10
        reach = width * 1.1 + 0.06
        return Nose(
            Place(Shape.FACE, side - reach, height - 0.36, side + reach, height + 0.6 * width + 0.06),
            *(side, height, width, 0.10 + 0.30 * people["nose_bridge"]),
            *(people.edge(0.014), people.edge(0.17), people.edge(1, width), people.edge(1, 0.035)),
            *(people.skin * 0.45, (people.skin * 1.06).clamp(max=1), people.skin * 0.30),
        )

    def paint(self, page: Page, box: Box) -> None:
        face, canvas, width = page.face.part(box), page.canvas, self.width
        moved, down = face.u - self.side, face.v - self.height
        side = moved.abs()
        bridge = overlap(self.bridge.ramp((side - width * 0.55).abs_()), self.back.ramp((down + 0.16).abs_()))
        canvas.paint(bridge.mul_(face.inside).mul_(self.shadow_strength), self.shadow_colour, face.box)
        across, up = moved.div_(width), down / (width * 0.7)
        tip = self.tip.coverage(across.square_().addcmul_(up, up).sqrt_())
        canvas.paint(tip.mul_(face.inside).mul_(0.5), self.tip_colour, face.box)
        across, up = side.sub_(width * 0.5).div_(0.045), down.sub_(width * 0.45).div_(0.030)
        nostrils = self.nostrils.coverage(across.square_().addcmul_(up, up).sqrt_())
        canvas.paint(nostrils.mul_(face.inside).mul_(0.8), self.nostril_colour, face.box)


@dataclass(frozen=True, eq=False)
class Mole(Part):
    """A mole; a size below zero means none."""

    u: Tensor
    v: Tensor
    edge: Edge
    colour: Tensor

    @staticmethod
    def of(people: People, number: int) -> Mole:
        """The moles of one number, 1 or 2."""
        u, v, size = (people[f"mole_{number}_{name}"] for name in ("u", "v", "size"))
        reach = size.clamp(min=0)
        place = Place(Shape.FACE, u - reach, v - reach, u + reach, v + reach)
        return Mole(place.only(size > 0), u, v, people.edge(size).only(size > 0), people.skin * 0.28)

    def paint(self, page: Page, box: Box) -> None:
        face = page.face.part(box)
        across, down = face.u - self.u, face.v - self.v
        coverage = self.edge.coverage(across.square_().addcmul_(down, down).sqrt_())
        page.canvas.paint(coverage.mul_(face.inside), self.colour, face.box)
