"""The parts of B faces in the order they are painted, worked out once, and painted a few faces at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import boxes
from .canvas import Canvas
from .eyes import Brows, Eyes, Glasses
from .grids import Axes
from .hair import BackHair, FrontHair
from .head import Beard, Ear, Head
from .light import Light
from .mouth import Mouth
from .nose import Mole, Nose
from .page import Page, Part
from .people import People
from .places import bounds_of
from .regions import REGIONS
from .rows import Stack
from .scenery import Neck, Shoulders, wall


class Plan:
    """B faces, ready to be painted."""

    def __init__(self, people: People) -> None:
        """Work out everything that does not need pixels."""
        hair, ears, head = BackHair.of(people), (Ear.of(people, -1), Ear.of(people, 1)), Head.of(people)
        skin = (Beard.of(people), Mole.of(people, 1), Mole.of(people, 2))
        features = (Nose.of(people), Mouth.of(people), Brows.of(people), Eyes.of(people))
        in_front = (FrontHair.of(people), Glasses.of(people))
        self._behind: tuple[Part, ...] = (hair, Shoulders.of(people), Neck.of(people), *ears)
        self._head, self._face = head, (*skin, *features, *in_front)
        self._axes, self._light, self._wall = Axes.of(people.pose), Light.of(people), wall(people)
        self._stack = Stack([self._axes, self._light, *self._behind, head, *self._face])
        lit = (head, hair, *ears)
        bounds = bounds_of([one.place for one in (*self._behind, head, *self._face, *lit)], people.pose)
        self._bounds = torch.cat([bounds[: -len(lit)], bounds[-len(lit) :].amin(dim=0, keepdim=True)])

    def paint(self, chosen: slice, images: Tensor, regions: Tensor) -> None:
        """Paint some of the faces into images (B, 3, H, W) and regions (B, R, H, W)."""
        *places, lit = boxes(self._bounds[:, chosen], images.shape[-1])
        cut = self._stack.cut(chosen)
        axes, light = self._axes.filled(cut), self._light.filled(cut)
        behind, head, face = [one.filled(cut) for one in self._behind], self._head.filled(cut), self._face
        page = Page(Canvas(images.copy_(self._wall[chosen])), *head.grids(axes, places[len(behind)]), axes)
        for part, box in zip((*behind, head, *(one.filled(cut) for one in face)), places, strict=True):
            part.paint(page, box)
        page.canvas.regions(regions)
        rows, columns = lit
        away = (regions[:, REGIONS.index(name), rows, columns] for name in ("background", "body"))
        light.shade(page, lit, torch.add(*away).sub_(1))
        images.clamp_(0, 1)
