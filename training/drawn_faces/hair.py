"""Hair: behind head and shoulders, and over the forehead."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .boxes import Box
from .edges import Edge, overlap
from .page import Page, Part
from .people import People
from .places import Place, Shape

# From this length on hair waves.
LONG_HAIR = 0.35


@dataclass(frozen=True, eq=False)
class BackHair(Part):
    """The hair behind head and shoulders.

    Attributes:
        width, crown: half width, and height above the middle.
        turn, wave: how far it moves with the yaw, and waves.
        outline, length: edges.
        colour: of its shade.
    """

    width: Tensor
    crown: Tensor
    turn: Tensor
    wave: Tensor
    outline: Edge
    length: Edge
    colour: Tensor

    @staticmethod
    def of(people: People) -> BackHair:
        """The hair behind."""
        volume, length = people["hair_volume"], people["hair_length"]
        width, crown = people["head_width"] + 0.8 * volume, people["crown"] + volume
        turn, wave = people.turn * 0.10, people["hair_wave"] * (length > LONG_HAIR)
        reach = width + turn.abs() + wave
        place = Place(Shape.RECTANGLE, -reach, -crown, reach, length)
        edges = (people.edge(1, 0.85).only(people.haired), people.edge(length))
        return BackHair(place, width, crown, turn, wave, *edges, people.hair * 0.72)

    def paint(self, page: Page, box: Box) -> None:
        here = page.axes.part(box)
        # One wave for a whole row: a sine for each pixel costs as much as the rest of the hair.
        wave = (here.y_rows * 9).sin_().mul_(self.wave).add_(self.turn)
        across = here.x_columns / self.width + (here.x_rows + wave) / self.width
        up = (here.y_columns / self.crown + here.y_rows / self.crown).clamp_(max=0)
        outline = across.square_().addcmul_(up, up).sqrt_()
        coverage = overlap(self.outline.ramp(outline), self.length.ramp(here.y()))
        page.canvas.paint(coverage, self.colour, box, "hair")


@dataclass(frozen=True, eq=False)
class FrontHair(Part):
    """The hair over the forehead, down to a hairline that arches about the parting.

    Attributes:
        width, crown: squares of 1 / half width and 1 / height above the middle.
        parting, arch, tilt, height: of the hairline.
        outline, line: edges.
        colour: of the hair.
    """

    width: Tensor
    crown: Tensor
    parting: Tensor
    arch: Tensor
    tilt: Tensor
    height: Tensor
    outline: Edge
    line: Edge
    colour: Tensor

    @staticmethod
    def of(people: People) -> FrontHair:
        """The hair in front."""
        volume = 0.7 * people["hair_volume"]
        width, crown = people["head_width"] + volume, people["crown"] + volume
        # Sideburns end at the ears; below, only the hair behind the head goes on.
        return FrontHair(
            Place(Shape.RECTANGLE, -width, -crown, width, people.height(0.05)),
            width.square().reciprocal(),
            crown.square().reciprocal(),
            people["parting"],
            people["hairline_arch"],
            people["fringe_tilt"],
            people["hairline"],
            people.edge(1, 0.8).only(people.haired),
            people.edge(0.0),
            people.hair,
        )

    def paint(self, page: Page, box: Box) -> None:
        face, outline = page.face.part(box), page.outline.part(box)
        across = face.u - self.parting
        line = (across * self.arch).add_(self.tilt).mul_(across).sub_(self.height).clamp_(max=0.05)
        below = self.line.ramp(line.neg_().add_(face.v))
        coverage = overlap(self.outline.ramp(outline.radius(self.width, self.crown)), below)
        page.canvas.paint(coverage, self.colour, face.box, "hair")
