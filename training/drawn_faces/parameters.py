"""The numbers a drawn face is made of, their ranges, how they are sampled, and how far two identities are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ...faces.errors import LikenessError


class BadParameters(LikenessError):
    """Numbers that do not make a drawn face."""


@dataclass(frozen=True)
class Parameter:
    """One number of a drawn face; sampled evenly between its bounds.

    Attributes:
        name: how `IdentityParameters` and `Attributes` know it.
        low, high: bounds. Lengths are in half heads (the head is about two high), angles in degrees, colours 0..1.
        neutral: the value of a plain picture.
    """

    name: str
    low: float
    high: float
    neutral: float


def _parameters(*rows: tuple[str, float, float] | tuple[str, float, float, float]) -> tuple[Parameter, ...]:
    return tuple(Parameter(row[0], row[1], row[2], row[3] if len(row) == 4 else (row[1] + row[2]) / 2) for row in rows)


IDENTITY = _parameters(
    ("head_width", 0.66, 0.90),
    ("crown", 0.86, 1.08),
    ("chin", 0.86, 1.12),
    ("jaw_taper", 0.02, 0.42),
    ("skin_tone", 0.0, 1.0),
    ("skin_red", -0.06, 0.06),
    ("hair_colour", 0.0, 1.0),
    ("hair_light", -0.10, 0.10),
    ("hairline", 0.36, 0.80),
    ("hairline_arch", -0.10, 0.75),
    ("parting", -0.40, 0.40),
    ("fringe_tilt", -0.30, 0.30),
    ("hair_volume", 0.03, 0.24),
    ("hair_length", -0.30, 1.60),
    ("hair_wave", 0.0, 0.07),
    ("bald", 0.0, 1.0),
    ("eye_colour", 0.0, 1.0),
    ("eye_distance", 0.27, 0.40),
    ("eye_height", -0.16, 0.06),
    ("eye_size", 0.13, 0.21),
    ("eye_shape", 0.40, 0.72),
    ("eye_tilt", -0.22, 0.22),
    ("iris_size", 0.40, 0.56),
    ("brow_gap", 0.15, 0.27),
    ("brow_length", 0.15, 0.26),
    ("brow_thickness", 0.018, 0.060),
    ("brow_angle", -0.30, 0.30),
    ("brow_arch", 0.0, 2.2),
    ("nose_length", 0.28, 0.50),
    ("nose_width", 0.09, 0.19),
    ("nose_bridge", 0.0, 1.0),
    ("mouth_height", 0.20, 0.34),
    ("mouth_width", 0.18, 0.34),
    ("lip_upper", 0.025, 0.075),
    ("lip_lower", 0.035, 0.095),
    ("lip_red", 0.0, 1.0),
    ("ear_size", 0.10, 0.20),
    ("beard", 0.0, 1.0),
    ("mole_1_u", -0.50, 0.50),
    ("mole_1_v", 0.10, 0.60),
    ("mole_1_size", -0.035, 0.045),
    ("mole_2_u", -0.45, 0.45),
    ("mole_2_v", -0.50, 0.20),
    ("mole_2_size", -0.045, 0.040),
)
ATTRIBUTES = _parameters(
    ("yaw", -35.0, 35.0),
    ("pitch", -18.0, 18.0),
    ("roll", -14.0, 14.0),
    ("smile", -0.5, 1.0, 0.0),
    ("mouth_open", 0.0, 1.0, 0.0),
    ("brow_raise", -0.5, 1.0, 0.0),
    ("eye_closed", 0.0, 0.8, 0.0),
    ("gaze", -1.0, 1.0),
    ("light_angle", -180.0, 180.0),
    ("light_strength", 0.0, 1.0, 0.3),
    ("light_warmth", -1.0, 1.0),
    ("glasses", 0.0, 1.0, 0.0),
    ("glasses_shape", 0.0, 1.0),
    ("background_red", 0.05, 0.95),
    ("background_green", 0.05, 0.95),
    ("background_blue", 0.05, 0.95),
    ("clothes", 0.0, 1.0),
    ("shift_x", -0.04, 0.04),
    ("shift_y", -0.04, 0.04),
    ("zoom", 0.92, 1.08),
)

Kind = TypeVar("Kind", bound="_Columns")


@dataclass(frozen=True, eq=False)
class _Columns:
    """B rows of named numbers.

    Attributes:
        values: (B, P) float32; 0 is a parameter's lower and 1 its upper bound.
    """

    values: Tensor
    table: ClassVar[tuple[Parameter, ...]]
    places: ClassVar[dict[str, int]]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.table):
            raise BadParameters(
                type(self).__name__,
                expected=f"(B, {len(self.table)})",
                found=str(tuple(self.values.shape)),
                cure="sample them, or start from neutral()",
            )

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, name: str) -> Tensor:
        """(B,) the named numbers between their bounds."""
        return self.numbers[:, self._place(name)]

    @cached_property
    def numbers(self) -> Tensor:
        """(B, P) all numbers between their bounds."""
        low = self.values.new_tensor([one.low for one in self.table])
        high = self.values.new_tensor([one.high for one in self.table])
        return torch.lerp(low, high, self.values)

    def replaced(self: Kind, **numbers: float | Tensor) -> Kind:
        """A copy with other numbers, one for all rows or (B,); outside the bounds they are clamped.

        Raises:
            BadParameters: a name that does not exist.
        """
        values = self.values.clone()
        for name, number in numbers.items():
            place = self._place(name)
            row = self.table[place]
            values[:, place] = ((torch.as_tensor(number).to(values) - row.low) / (row.high - row.low)).clamp(0, 1)
        return type(self)(values)

    def rows(self: Kind, index: Tensor | Sequence[int] | slice) -> Kind:
        """Some of the rows, in that order."""
        chosen = index if isinstance(index, slice) else torch.as_tensor(index, dtype=torch.long)
        return type(self)(self.values[chosen])

    def repeated(self: Kind, times: int) -> Kind:
        """Every row ``times`` times, one after the other."""
        return type(self)(self.values.repeat_interleave(times, dim=0))

    @classmethod
    def neutral(cls: type[Kind], count: int = 1) -> Kind:
        """``count`` rows of the plain values."""
        row = [(one.neutral - one.low) / (one.high - one.low) for one in cls.table]
        return cls(torch.tensor([row]).repeat(count, 1))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The parameters' names in column order."""
        return tuple(one.name for one in cls.table)

    def _place(self, name: str) -> int:
        place = self.places.get(name)
        if place is None:
            known = ", ".join(self.names())
            raise BadParameters(type(self).__name__, expected=known, found=name, cure="use one of these names")
        return place


@dataclass(frozen=True, eq=False)
class IdentityParameters(_Columns):
    """What a person keeps from picture to picture: shapes, colours, hair, marks; see `IDENTITY`."""

    table = IDENTITY
    places = {one.name: place for place, one in enumerate(IDENTITY)}


@dataclass(frozen=True, eq=False)
class Attributes(_Columns):
    """What changes from picture to picture: pose, expression, light, glasses, background; see `ATTRIBUTES`.

    ``glasses`` of 0.5 and more puts glasses on.
    """

    table = ATTRIBUTES
    places = {one.name: place for place, one in enumerate(ATTRIBUTES)}


def sample_identities(count: int, generator: torch.Generator) -> IdentityParameters:
    """``count`` persons, every number evenly between its bounds."""
    return IdentityParameters(torch.rand(count, len(IDENTITY), generator=generator))


def sample_attributes(count: int, generator: torch.Generator) -> Attributes:
    """Attributes of ``count`` pictures; one in four wears glasses."""
    values = torch.rand(count, len(ATTRIBUTES), generator=generator)
    place = Attributes.names().index("glasses")
    values[:, place] = (values[:, place] > 0.75).float()
    return Attributes(values)


def identity_distance(first: IdentityParameters, second: IdentityParameters) -> Tensor:
    """(B,) root mean square difference of the numbers; two persons drawn at random are 1 apart on average (squared)."""
    # The square of the difference of two even numbers of 0..1 is 1/6 on average.
    return (6 * (first.values - second.values).square().mean(dim=1)).sqrt()
