"""What the parts of a face need while they are painted, and what every part is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .boxes import Box
from .canvas import Canvas
from .grids import Axes, FaceGrid, Outline
from .places import Place
from .rows import Rows


@dataclass(frozen=True, eq=False)
class Page:
    """A few pictures under work.

    Attributes:
        canvas: what is painted on.
        face, outline: the box of the heads with the hair over the forehead.
        axes: head coordinates of the whole pictures.
    """

    canvas: Canvas
    face: FaceGrid
    outline: Outline
    axes: Axes


@dataclass(frozen=True, eq=False)
class Part(Rows, ABC):
    """A part of B faces, as numbers (B, 1, 1) and colours (B, 3, 1, 1) that are worked out for all faces at once.

    Attributes:
        place: where it can be seen.
    """

    place: Place

    @abstractmethod
    def paint(self, page: Page, box: Box) -> None:
        """Paint the part; the box holds it in all pictures of the page."""
