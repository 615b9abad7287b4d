"""Edit directions in W+: how a code moves to be older, to smile, to turn.

Three kinds are published, and each acts by a rule of its own (``script/utils_direction.py`` of w-plus-adapter):

* linear (InterFaceGAN, Shen et al. 2020): (1, 512), the same for every row; the strength is an increment;
* by row (18, 512): the strength is an increment; only rows 0..7 move, those behind carry colour and light;
* principal components (GANSpace, Härkönen et al. 2020): the strength is the target coordinate in standard deviations,
  measured from the first row of the code; each attribute is one component on some rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import CheckpointHeader, load_tensors, read_header
from ...errors import BadCheckpoint, UnknownCheckpoint

ROWS, STYLE_DIM = 18, 512
# Rows that the authors' demo moves for directions given by row.
MOVED_ROWS = (0, 8)

# Component, first row, row after the last one (the repository's ganspace_configs.csv).
ATTRIBUTES: dict[str, tuple[int, int, int]] = {
    "frizzy_hair": (31, 2, 6),
    "background_blur": (49, 6, 9),
    "bald": (21, 2, 5),
    "big_smile": (19, 4, 5),
    "caricature_smile": (26, 3, 8),
    "scary_eyes": (33, 6, 8),
    "curly_hair": (47, 3, 6),
    "dark_bg_shiny_hair": (13, 8, 9),
    "dark_hair_and_light_pos": (14, 8, 9),
    "dark_hair": (16, 8, 9),
    "disgusted": (43, 6, 8),
    "displeased": (36, 4, 7),
    "eye_openness": (54, 7, 8),
    "eye_wrinkles": (28, 6, 8),
    "eyebrow_thickness": (37, 8, 9),
    "face_roundness": (37, 0, 5),
    "fearful_eyes": (54, 4, 10),
    "hairline": (21, 4, 5),
    "happy_frizzy_hair": (30, 0, 8),
    "happy_elderly_lady": (27, 4, 7),
    "head_angle_up": (11, 1, 4),
    "huge_grin": (28, 4, 6),
    "in_awe": (23, 3, 6),
    "wide_smile": (23, 3, 6),
    "large_jaw": (22, 3, 6),
    "light_lr": (15, 8, 9),
    "lipstick_and_age": (34, 6, 11),
    "lipstick": (34, 10, 11),
    "mascara_vs_beard": (41, 6, 9),
    "nose_length": (51, 4, 5),
    "elderly_woman": (34, 6, 7),
    "overexposed": (27, 8, 18),
    "screaming": (35, 3, 7),
    "short_face": (32, 2, 6),
    "show_front_teeth": (59, 4, 5),
    "smile": (46, 4, 5),
    "straight_bowl_cut": (20, 4, 5),
    "sunlight_in_face": (10, 8, 9),
    "trimmed_beard": (58, 7, 9),
    "white_hair": (57, 7, 10),
    "wrinkles": (20, 6, 7),
    "boyishness": (8, 2, 5),
}


class Direction(ABC):
    """A way through W+.

    Attributes:
        title: for the report.
        rows: first row it moves, and the row after the last one.
    """

    title: str
    rows: tuple[int, int]

    @abstractmethod
    def delta(self, codes: Tensor, strength: float) -> Tensor:
        """What to add to codes (N, 18, 512) to move all rows by ``strength``; the caller keeps those in `rows`."""


@dataclass(frozen=True, eq=False)
class LinearDirection(Direction):
    """Steps along (18, 512) or (1, 512)."""

    title: str
    step: Tensor
    rows: tuple[int, int]

    def delta(self, codes: Tensor, strength: float) -> Tensor:
        return (strength * self.step).expand_as(codes)


@dataclass(frozen=True, eq=False)
class ComponentDirection(Direction):
    """Moves the coordinate along one principal component to ``strength`` standard deviations.

    Attributes:
        mean: (512,) mean of w.
        component: (512,) unit vector.
        deviation: standard deviation along it.
    """

    title: str
    mean: Tensor
    component: Tensor
    deviation: float
    rows: tuple[int, int]

    def delta(self, codes: Tensor, strength: float) -> Tensor:
        component = self.component.to(codes)
        coordinate = (codes[:, 0] - self.mean.to(codes)) @ component / self.deviation
        moved = (strength - coordinate) * self.deviation
        return (moved[:, None] * component)[:, None].expand_as(codes)


def edit(codes: Tensor, direction: Direction, strength: float, rows: tuple[int, int] | None = None) -> Tensor:
    """Return codes (N, 18, 512) moved along a direction.

    Args:
        codes: (N, 18, 512).
        direction: the way.
        strength: see the kinds above; negative goes the other way.
        rows: first row to move and the row after the last one; None takes the direction's own.
    """
    start, end = direction.rows if rows is None else rows
    moved = codes.clone()
    moved[:, start:end] += direction.delta(codes, strength)[:, start:end].to(codes)
    return moved


def mix(first: Tensor, second: Tensor, rows: tuple[int, int], amount: float) -> Tensor:
    """Return codes (N, 18, 512) of ``first`` whose rows go to those of ``second`` by ``amount``.

    One code on either side serves all of the other.
    """
    count = max(len(first), len(second))
    mixed = first.expand(count, -1, -1).clone()
    part = slice(*rows)
    mixed[:, part] = torch.lerp(mixed[:, part], second[:, part].expand(count, -1, -1), amount)
    return mixed


def read_direction(path: Path, attribute: str) -> Direction:
    """Read a published direction file: ``.npy`` by row, ``.pt`` linear, or the ``.pt`` of principal components.

    Args:
        path: the file.
        attribute: a name of `ATTRIBUTES`, read for principal components only.

    Raises:
        BadCheckpoint: a file that cannot be read.
        UnknownCheckpoint: tensors of other shapes, or an attribute that the table lacks.
    """
    if path.suffix.lower() == ".npy":
        return _linear(path, _read_numpy(path))
    header = read_header(path)
    tensors = load_tensors(header)
    if {"mean", "comp", "std"} <= tensors.keys():
        return component_direction(tensors["mean"], tensors["comp"], tensors["std"], attribute)
    if len(tensors) != 1:
        raise _unknown(path, f"{len(tensors)} tensors ({_names(header)})")
    return _linear(path, next(iter(tensors.values())))


def component_direction(mean: Tensor, components: Tensor, deviations: Tensor, attribute: str) -> ComponentDirection:
    """An attribute of GANSpace.

    Args:
        mean: (1, 512).
        components: (80, 1, 512).
        deviations: (80,).
        attribute: a name of `ATTRIBUTES`.

    Raises:
        UnknownCheckpoint: an attribute that the table lacks, or fewer components than it needs.
    """
    index, start, end = ATTRIBUTES.get(attribute, (len(components), 0, 0))
    if index >= len(components):
        raise UnknownCheckpoint(
            "edit direction",
            expected=f"an attribute of the table within {len(components)} components",
            found=attribute,
            cure="choose an attribute of the list",
        )
    return ComponentDirection(
        attribute,
        mean.float().flatten(),
        components[index].float().flatten(),
        float(deviations.flatten()[index]),
        (start, end),
    )


def _linear(path: Path, step: Tensor) -> LinearDirection:
    step = step.float()
    if step.numel() == STYLE_DIM:
        return LinearDirection(path.stem, step.reshape(1, STYLE_DIM), (0, ROWS))
    if step.numel() == ROWS * STYLE_DIM and step.shape[-2:] == (ROWS, STYLE_DIM):
        return LinearDirection(path.stem, step.reshape(ROWS, STYLE_DIM), MOVED_ROWS)
    raise _unknown(path, f"a tensor of shape {tuple(step.shape)}")


def _read_numpy(path: Path) -> Tensor:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
        return torch.from_numpy(np.asarray(array, dtype=np.float32))
    except (OSError, ValueError, EOFError) as error:
        raise BadCheckpoint(
            path.name, expected="a numpy array of numbers", found=f"{error}", cure="download the file again"
        ) from error


def _names(header: CheckpointHeader) -> str:
    return ", ".join(list(header.tensors)[:5])


def _unknown(path: Path, found: str) -> UnknownCheckpoint:
    return UnknownCheckpoint(
        path.name,
        expected="an edit direction: (1, 512), (18, 512), or mean, comp and std of principal components",
        found=found,
        cure="use the files of w_direction in the authors' repository",
    )
