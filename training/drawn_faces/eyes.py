"""Brows, eyes and glasses, in face coordinates; both sides are drawn at once, mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .boxes import Box
from .edges import Edge, overlap
from .page import Page, Part
from .people import People, as_planes
from .places import Place, Shape


@dataclass(frozen=True, eq=False)
class Brows(Part):
    """Bent lines above the eyes.

    Attributes:
        side, height: where their middles are.
        angle, arch: how they are bent.
        length, thickness: edges.
        colour: of the hair in them.
    """

    side: Tensor
    height: Tensor
    angle: Tensor
    arch: Tensor
    length: Edge
    thickness: Edge
    colour: Tensor

    @staticmethod
    def of(people: People) -> Brows:
        """The brows."""
        side, length, thickness = people["eye_distance"], people["brow_length"], people["brow_thickness"]
        angle, arch = people["brow_angle"], people["brow_arch"]
        height = people["eye_height"] - people["brow_gap"] - 0.07 * people["brow_raise"]
        end, rise = side + length, (angle * length).abs() + thickness
        place = Place(Shape.FACE, -end, height - rise, end, height + rise + arch * length.square())
        edges = (people.edge(length), people.edge(thickness))
        return Brows(place, side, height, angle, arch, *edges, people.hair * 0.55)

    def paint(self, page: Page, box: Box) -> None:
        face = page.face.part(box)
        across = face.u.abs().sub_(self.side)
        line = (across * self.arch).add_(self.angle).mul_(across).add_(self.height)
        away = torch.sub(face.v, line, out=line).abs_()
        coverage = overlap(self.thickness.ramp(away), self.length.ramp(across.abs_()))
        page.canvas.paint(coverage.mul_(face.inside), self.colour, face.box)


@dataclass(frozen=True, eq=False)
class Eyes(Part):
    """Almonds with iris, pupil and lid line.

    Attributes:
        side, height: where their middles are.
        size, opening, tilt: half width, half height, and how they slant.
        gaze: how far the irises are from the middles.
        almond, lid, iris, pupil: edges.
        white_colour, lid_colour, iris_colour, pupil_colour: colours.
    """

    side: Tensor
    height: Tensor
    size: Tensor
    opening: Tensor
    tilt: Tensor
    gaze: Tensor
    almond: Edge
    lid: Edge
    iris: Edge
    pupil: Edge
    white_colour: Tensor
    lid_colour: Tensor
    iris_colour: Tensor
    pupil_colour: Tensor

    @staticmethod
    def of(people: People) -> Eyes:
        """The eyes."""
        side, height, size, tilt = (people[f"eye_{name}"] for name in ("distance", "height", "size", "tilt"))
        opening = size * people["eye_shape"] * (1 - people["eye_closed"])
        # The lid line goes on a little outside the almond.
        end, high = side + size * 1.2 + 0.03, opening + 0.03 + (size * tilt).abs() * 1.3
        iris = size * people["iris_size"]
        grown = opening * 0.75
        return Eyes(
            Place(Shape.FACE, -end, height - high, end, height + high),
            *(side, height, size, opening, tilt, people["gaze"] * size * 0.28),
            *(people.edge(1, grown), people.edge(0.014 / grown, grown), people.edge(iris), people.edge(iris * 0.45)),
            *(people.colour(0.93, 0.93, 0.93), people.skin * 0.32),
            *(as_planes(colours.iris(people.identities)), people.colour(0.04, 0.04, 0.04)),
        )

    def paint(self, page: Page, box: Box) -> None:
        face, canvas = page.face.part(box), page.canvas
        across, down = face.u.abs().sub_(self.side), face.v - self.height
        almond = self._almond(across, down)
        lid = self.lid.coverage((almond - 1).abs_()).mul_(face.inside)
        white = self.almond.coverage(almond).mul_(face.inside)
        canvas.paint(white, self.white_colour, face.box, "eyes")
        gaze = across.sub_(face.u.sign().mul_(self.gaze))
        from_iris = gaze.square_().addcmul_(down, down).sqrt_()
        canvas.paint(self.iris.coverage(from_iris.clone()).mul_(white), self.iris_colour, face.box)
        canvas.paint(self.pupil.coverage(from_iris).mul_(white), self.pupil_colour, face.box)
        canvas.paint(lid, self.lid_colour, face.box)

    def _almond(self, across: Tensor, down: Tensor) -> Tensor:
        """What is 1 on two parabolas: |v| = opening * (1 - (u / size)^2)."""
        tilted = (across * self.tilt).add_(down).div_(self.opening).abs_()
        return (across / self.size).square_().add_(tilted)


@dataclass(frozen=True, eq=False)
class Glasses(Part):
    """Frames: two rims, and a line for bridge and temples.

    Attributes:
        side, height: where the glasses' middles are.
        square: how square they are.
        edge: of the frame.
        worn: who wears any.
        colour: of the frame.
    """

    side: Tensor
    height: Tensor
    square: Tensor
    edge: Edge
    worn: Tensor
    colour: Tensor

    @staticmethod
    def of(people: People) -> Glasses:
        """The glasses."""
        width, height = people["head_width"], people["eye_height"] + 0.03
        side, worn = people["eye_distance"] + 0.01, people["glasses"] >= 0.5
        place = Place(Shape.FACE, -width - 0.1, height - 0.21, width + 0.1, height + 0.21).only(worn)
        edge, square = people.edge(0.0).only(worn), 0.8 * people["glasses_shape"]
        return Glasses(place, side, height, square, edge, worn, people.colour(0.10, 0.10, 0.10))

    def paint(self, page: Page, box: Box) -> None:
        if not bool(self.worn.any()):
            return
        face = page.face.part(box)
        across, down = face.u.abs().sub_(self.side).div_(0.235), (face.v - self.height).div_(0.18)
        round_, square = (across * across).addcmul_(down, down).sqrt_(), torch.maximum(across.abs_(), down.abs())
        rim = round_.lerp_(square, self.square).sub_(1).mul_(0.2)
        # Bridge and temples are one line through both eyes, seen outside the rims.
        line = torch.maximum(down.mul_(0.18).add_(0.04).abs_().sub_(0.016), -rim)
        coverage = self.edge.coverage(torch.minimum(rim.abs_().sub_(0.020), line, out=line))
        page.canvas.paint(coverage.mul_(face.inside), self.colour, face.box, "glasses")
