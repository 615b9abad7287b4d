"""Where a point of the face lands in the picture, and which point of the face a pixel shows.

The head is an ellipsoid that turns by yaw and pitch; roll, shift and zoom act in the picture. Face coordinates
(u, v) lie on its unturned front, v downwards; head coordinates (x, y) are those of the picture without roll.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .parameters import Attributes, IdentityParameters
from .rows import Rows

# Half a head in parts of the picture's side, at zoom 1.
HALF_HEAD = 0.30
# The middle of the head stands a little above the middle of the picture's lower part.
CENTRE_Y = 0.49


@dataclass(frozen=True, eq=False)
class Turn(Rows):
    """How the ellipsoids of B heads turn about one axis.

    Attributes:
        radius: (B, 1, 1) of the ellipsoid.
        sin, cos: (B, 1, 1) of the angle.
    """

    radius: Tensor
    sin: Tensor
    cos: Tensor

    def face(self, place: Tensor) -> Tensor:
        """Face coordinates (B, R, C) of head coordinates."""
        depth = torch.addcmul(self.radius.square(), place, place, value=-1).clamp_(min=0).sqrt_()
        return (place * self.cos).addcmul_(depth, self.sin, value=-1)


@dataclass(frozen=True, eq=False)
class Pose:
    """How B heads stand in pictures of one size.

    Attributes:
        size: side of the pictures in pixels.
        centre: (B, 2) x and y of the head's middle in pixels.
        scale: (B,) pixels of a half head.
        sin, cos: (B, 3) of yaw, pitch and roll.
        radii: (B, 2) half width and half height of the ellipsoid that turns.
    """

    size: int
    centre: Tensor
    scale: Tensor
    sin: Tensor
    cos: Tensor
    radii: Tensor

    @staticmethod
    def of(identities: IdentityParameters, attributes: Attributes, size: int) -> Pose:
        """The pose of B faces."""
        angles = torch.stack([attributes[name] for name in ("yaw", "pitch", "roll")], dim=1) * (math.pi / 180)
        centre = torch.stack([0.5 + attributes["shift_x"], CENTRE_Y + attributes["shift_y"]], dim=1) * size
        radii = torch.stack([identities["head_width"], (identities["crown"] + identities["chin"]) / 2], dim=1)
        return Pose(size, centre, HALF_HEAD * size * attributes["zoom"], angles.sin(), angles.cos(), radii)

    def turn(self, axis: int) -> Turn:
        """The turn by the yaw (axis 0) or the pitch (1)."""
        return Turn(*(one[:, axis, None, None] for one in (self.radii, self.sin, self.cos)))

    def picture_points(self, u: Tensor, v: Tensor) -> Tensor:
        """Pixels (B, K, 2) of face points u and v, each (B, K)."""
        return self.rolled_points(self.turned(u.T, 0).T, self.turned(v.T, 1).T)

    def rolled_points(self, x: Tensor, y: Tensor) -> Tensor:
        """Pixels (B, K, 2) of head points x and y, each (B, K)."""
        sin, cos = self.sin[:, 2:], self.cos[:, 2:]
        pixels = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=2)
        return pixels * self.scale[:, None, None] + self.centre[:, None]

    def turned(self, place: Tensor, axis: int) -> Tensor:
        """Head coordinates (..., B) of face coordinates u (axis 0) or v (1)."""
        radius, sin, cos = (part[:, axis] for part in (self.radii, self.sin, self.cos))
        return place * cos + (radius.square() - place.square()).clamp(min=0).sqrt() * sin
