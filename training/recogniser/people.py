"""Where the faces of a recogniser's training come from: aligned pictures of numbered persons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...faces.align import crop_faces
from ..drawn_faces import IdentityParameters, draw, sample_attributes, sample_identities
from ..seeds import generator_for

SIZE = 112
TEMPLATE = "arcface"
_DRAWN_SIZE = 128


class People(Protocol):
    """A source of labelled faces."""

    @property
    def count(self) -> int:
        """How many persons there are."""

    def pictures(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, 112, 112) aligned pictures in -1..1 of the persons ``labels`` (B,), each a new one."""


@dataclass(frozen=True)
class DrawnPeople:
    """Drawn persons, told by their seed; every picture has attributes of its own.

    Attributes:
        count: how many.
        seed: other seeds give other persons.
    """

    count: int
    seed: int
    identities: IdentityParameters = field(init=False, repr=False)

    def __post_init__(self) -> None:
        generator = generator_for("drawn people", self.seed)
        object.__setattr__(self, "identities", sample_identities(self.count, generator))

    def pictures(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See `People`."""
        drawn = draw(self.identities.rows(labels), sample_attributes(len(labels), generator), _DRAWN_SIZE)
        crops = crop_faces(drawn.images, torch.arange(len(labels)), drawn.landmarks5, TEMPLATE, SIZE, "border")
        return crops * 2 - 1
