"""The mouth, in face coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .boxes import Box
from .edges import Edge
from .landmarks import mouth_height
from .page import Page, Part
from .people import People, as_planes
from .places import Place, Shape


@dataclass(frozen=True, eq=False)
class Mouth(Part):
    """Lips between two parabolas, and teeth and dark where it is open.

    Attributes:
        half, height: half width, and where the lips' middle is.
        corners: how far the corners are raised.
        gap, upper, lower: half height of the opening, and of it with either lip.
        edge: of all of them.
        lip_colour, dark_colour, teeth_colour: colours.
    """

    half: Tensor
    height: Tensor
    corners: Tensor
    gap: Tensor
    upper: Tensor
    lower: Tensor
    edge: Edge
    lip_colour: Tensor
    dark_colour: Tensor
    teeth_colour: Tensor

    @staticmethod
    def of(people: People) -> Mouth:
        """The mouths."""
        half, corners = people["mouth_width"] * (1 + 0.18 * people["smile"]), 0.10 * people["smile"]
        height, gap = mouth_height(people) + corners * 0.5, 0.01 + 0.11 * people["mouth_open"]
        upper, lower = people["lip_upper"] + gap, people["lip_lower"] + gap
        # Beyond its corners a thin mouth fades out over pixels: half of one is reached where the lips are as far apart.
        beyond = 1 + 0.5 / (people.pose.scale[:, None, None] * torch.minimum(upper, lower))
        end, bend = half * beyond.sqrt(), corners * beyond
        top, bottom = height - torch.maximum(upper, bend), height + torch.maximum(lower, -bend)
        return Mouth(
            Place(Shape.FACE, -end, top, end, bottom),
            *(half, height, corners, gap, upper, lower, people.edge(0.0), as_planes(colours.lips(people.identities))),
            *(people.colour(0.22, 0.05, 0.06), people.colour(0.92, 0.92, 0.92)),
        )

    def paint(self, page: Page, box: Box) -> None:
        face, canvas = page.face.part(box), page.canvas
        place = (face.u / self.half).square_()
        down = (place * self.corners).add_(face.v).sub_(self.height)
        envelope = place.neg_().add_(1)
        above, below, gap = envelope * self.upper, envelope * self.lower, envelope.mul_(self.gap)
        lips = self.edge.coverage(torch.maximum(above.add_(down).neg_(), torch.sub(down, below, out=below), out=below))
        canvas.paint(lips.mul_(face.inside), self.lip_colour, face.box, "mouth")
        opening = self.edge.coverage(down.abs().sub_(gap)).mul_(lips)
        canvas.paint(opening, self.dark_colour, face.box)
        teeth = torch.maximum(gap.add_(down).neg_().add_(0.006), down.add_(0.012), out=gap)
        canvas.paint(self.edge.coverage(teeth).mul_(opening), self.teeth_colour, face.box)
