"""The head itself, its ears and its beard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import Box
from .edges import Edge
from .geometry import Turn
from .grids import Axes, FaceGrid, Outline
from .page import Page, Part
from .people import People
from .places import Place, Shape


@dataclass(frozen=True, eq=False)
class Head(Part):
    """The head. Its grids come first, since everything on the face ends at its outline.

    Attributes:
        width, crown: squares of 1 / half width and 1 / height above the middle.
        chin: height below the middle.
        taper, lean: how much narrower the jaw is, and how far the chin moves with the yaw.
        yaw, pitch: turns.
        edge: of the outline.
        skin: colour.
    """

    width: Tensor
    crown: Tensor
    chin: Tensor
    taper: Tensor
    lean: Tensor
    yaw: Turn
    pitch: Turn
    edge: Edge
    skin: Tensor

    @staticmethod
    def of(people: People) -> Head:
        """The heads; their place holds the hair over the forehead too."""
        width, crown, chin = people["head_width"], people["crown"], people["chin"]
        hair, lean = 0.7 * people["hair_volume"], -0.14 * people.turn
        wide, high = width + hair + lean.abs(), torch.maximum(crown + hair, chin)
        return Head(
            Place(Shape.ELLIPSE, -wide, -high, wide, high),
            width.square().reciprocal(),
            crown.square().reciprocal(),
            chin,
            -people["jaw_taper"],
            lean,
            people.pose.turn(0),
            people.pose.turn(1),
            people.edge(1, 0.8),
            people.skin,
        )

    def grids(self, axes: Axes, box: Box) -> tuple[FaceGrid, Outline]:
        """Face coordinates and outline over the box of the heads."""
        here = axes.part(box)
        x, y = here.x(), here.y()
        u, v = self.yaw.face(x), self.pitch.face(y)
        down = y.clamp(min=0).div_(self.chin)
        across = x.addcmul_(down, self.lean)
        down.square_()
        across.div_((down * self.taper).add_(1).clamp_(min=0.2)).square_()
        outline = Outline(box, across, y.clamp_(max=0).square_(), down)
        return FaceGrid(box, u, v, self.edge.coverage(outline.radius(self.width, self.crown))), outline

    def paint(self, page: Page, box: Box) -> None:
        page.canvas.paint(page.face.inside, self.skin, box, "face")


@dataclass(frozen=True, eq=False)
class Ear(Part):
    """One ear, behind the head: middle, radii, edge and colour."""

    x: Tensor
    y: Tensor
    across: Tensor
    down: Tensor
    edge: Edge
    colour: Tensor

    @staticmethod
    def of(people: People, side: int) -> Ear:
        """The ears of one side, -1 or 1."""
        x, y = people["head_width"] * (0.98 * side), 0.04 + people.nod * 0.3
        down = people["ear_size"]
        across = down * 0.62
        place = Place(Shape.ELLIPSE, x - across, y - down, x + across, y + down)
        return Ear(place, x, y, across, down, people.edge(1, down), people.skin * 0.88)

    def paint(self, page: Page, box: Box) -> None:
        here = page.axes.part(box)
        across, down = here.x().sub_(self.x).div_(self.across), here.y().sub_(self.y).div_(self.down)
        coverage = self.edge.coverage(across.square_().addcmul_(down, down).sqrt_())
        page.canvas.paint(coverage, self.colour, box, "face")


@dataclass(frozen=True, eq=False)
class Beard(Part):
    """A beard that fades in below the cheeks; half of all persons have none."""

    strength: Tensor
    colour: Tensor

    @staticmethod
    def of(people: People) -> Beard:
        """The beards."""
        width, chin = people["head_width"], people["chin"]
        place = Place(Shape.RECTANGLE, -width - 0.1, people.height(0.125), width + 0.1, chin)
        return Beard(place, (people["beard"] - 0.5).clamp(min=0) * 1.7, people.hair * 0.8)

    def paint(self, page: Page, box: Box) -> None:
        face = page.face.part(box)
        coverage = face.u.abs().mul_(-1.4).add_(face.v, alpha=4).sub_(0.5).clamp_(0, 1)
        page.canvas.paint(coverage.mul_(self.strength).mul_(face.inside), self.colour, face.box)
