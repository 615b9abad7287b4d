"""B faces to draw: their numbers, pose and colours, shaped for pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .edges import Edge
from .geometry import Pose
from .parameters import Attributes, IdentityParameters

# From this value on a person is bald.
BALD = 0.92


@dataclass(frozen=True, eq=False)
class People:
    """What the parts of the faces are made from.

    Attributes:
        identities, attributes: the numbers.
        pose: where the heads stand.
        skin, hair: colours (B, 3, 1, 1).
        numbers: (B, 1, 1) each.
    """

    identities: IdentityParameters
    attributes: Attributes
    pose: Pose
    skin: Tensor
    hair: Tensor
    numbers: Mapping[str, Tensor]

    @staticmethod
    def of(identities: IdentityParameters, attributes: Attributes, size: int) -> People:
        """Prepare B faces for pictures of ``size``."""
        numbers: dict[str, Tensor] = {}
        for table in (identities, attributes):
            numbers |= zip(table.names(), table.numbers.T[:, :, None, None].unbind(0), strict=True)
        skin, hair = (as_planes(one(identities)) for one in (colours.skin, colours.hair))
        return People(identities, attributes, Pose.of(identities, attributes, size), skin, hair, numbers)

    def __getitem__(self, name: str) -> Tensor:
        """(B, 1, 1) a number of identities or attributes."""
        return self.numbers[name]

    @property
    def turn(self) -> Tensor:
        """(B, 1, 1) sine of the yaw."""
        return self.pose.sin[:, :1, None]

    @property
    def nod(self) -> Tensor:
        """(B, 1, 1) sine of the pitch."""
        return self.pose.sin[:, 1:2, None]

    @property
    def haired(self) -> Tensor:
        """(B, 1, 1) booleans: who is not bald."""
        return self["bald"] < BALD

    def height(self, v: float) -> Tensor:
        """(B, 1, 1) y of one height v on all faces."""
        return self.pose.turned(torch.full_like(self.pose.scale, v), 1)[:, None, None]

    def edge(self, at: Tensor | float, length: Tensor | float = 1.0) -> Edge:
        """The edge of a shape at a value (B, 1, 1) that grows by 1 in ``length`` half heads."""
        return Edge.of(self.pose.scale[:, None, None], at, length)

    def colour(self, red: float, green: float, blue: float) -> Tensor:
        """(B, 3, 1, 1) one colour for all."""
        return torch.tensor([red, green, blue])[None, :, None, None].expand_as(self.skin)


def as_planes(colour: Tensor) -> Tensor:
    """(B, 3, 1, 1) a colour (B, 3)."""
    return colour[:, :, None, None]
