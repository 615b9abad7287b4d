"""Where in the pictures the parts of a face can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from .boxes import bounds
from .geometry import Pose


class Shape(Enum):
    """What the four edges of a place mean."""

    FACE = "everything between two u and two v of the face"
    RECTANGLE = "a rectangle in head coordinates"
    ELLIPSE = "an ellipse in head coordinates"
    UPRIGHT = "a rectangle that does not roll with the head"


@dataclass(frozen=True, eq=False)
class Place:
    """Where a part of B faces lies at most; edges (B, 1, 1) in half heads, or one number for all."""

    shape: Shape
    left: Tensor | float
    top: Tensor | float
    right: Tensor | float
    bottom: Tensor | float

    def only(self, seen: Tensor) -> Place:
        """The same for those who have the part, (B, 1, 1) booleans; the others' places are points."""
        return Place(self.shape, *(edge * seen for edge in (self.left, self.top, self.right, self.bottom)))


def bounds_of(places: Sequence[Place], pose: Pose) -> Tensor:
    """(P, B, 4) the bounds in pixels of all places at once, see `boxes.bounds`."""
    left, top, right, bottom = _head_edges(places, pose)
    upright, round_ = _which(places, Shape.UPRIGHT), _which(places, Shape.ELLIPSE)
    sin, cos = pose.sin[:, 2].masked_fill(upright, 0), pose.cos[:, 2].masked_fill(upright, 1)
    x, y, across, down = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    wide = torch.where(round_, torch.hypot(across * cos, down * sin), across * cos + down * sin.abs())
    high = torch.where(round_, torch.hypot(across * sin, down * cos), across * sin.abs() + down * cos)
    middle_x = (x * cos - y * sin) * pose.scale + pose.centre[:, 0]
    middle_y = (x * sin + y * cos) * pose.scale + pose.centre[:, 1]
    wide, high = wide * pose.scale + 1, high * pose.scale + 1
    return bounds(middle_x - wide, middle_y - high, middle_x + wide, middle_y + high)


def _head_edges(places: Sequence[Place], pose: Pose) -> tuple[Tensor, ...]:
    """Left, top, right and bottom, each (P, B), in head coordinates."""
    edges = [one for place in places for one in _edges(place, pose.scale)]
    left, top, right, bottom = torch.stack(edges).view(len(places), 4, -1).unbind(1)
    # What is drawn fades out within a pixel, and a pixel of the face may be several of the picture.
    pixel, on_face = 1 / pose.scale, _which(places, Shape.FACE)
    x, y = _shown(pose, left - pixel, right + pixel, 0), _shown(pose, top - pixel, bottom + pixel, 1)
    pairs = ((x[0], left), (y[0], top), (x[1], right), (y[1], bottom))
    return tuple(torch.where(on_face, shown, given) for shown, given in pairs)


def _edges(place: Place, like: Tensor) -> list[Tensor]:
    edges = (place.left, place.top, place.right, place.bottom)
    return [one.flatten() if isinstance(one, Tensor) else torch.full_like(like, one) for one in edges]


def _which(places: Sequence[Place], shape: Shape) -> Tensor:
    return torch.tensor([[place.shape is shape] for place in places])


def _shown(pose: Pose, low: Tensor, high: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Head coordinates (P, B) between which face coordinates from low to high lie."""
    radius, cos = pose.radii[:, axis], pose.cos[:, axis]
    first, last = pose.turned(low, axis), pose.turned(high, axis)
    reach = torch.maximum(low.abs(), high.abs())
    edge = torch.maximum(radius, reach / cos)
    # Where the ellipsoid turns away, the coordinates fold back and go on beyond its outline, on both sides.
    folded = reach > radius * cos
    return torch.where(folded, torch.minimum(first, -edge), first), torch.where(folded, torch.maximum(last, edge), last)
