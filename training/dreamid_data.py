"""What DreamID is trained on: triplets (A1 source, B~ pseudo-target, A2 ground truth), in memory or in a folder.

A1 and A2 are two photos of one person; B~ is A2 with the face of somebody else. So the swap A1 -> B~ has the real photo
A2 as its exact answer. (The paper's introduction words the roles the other way round; its figure 3 and section 4.1 are
as here.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..faces.errors import LikenessError
from .pictures import PictureFolder

SOURCES, TRUTHS, TARGETS = "A1", "A2", "B_"
LIST = "triplets.jsonl"


class BadTriplets(LikenessError):
    """A folder of triplets that cannot be used."""


@dataclass(frozen=True, eq=False)
class TripletRows:
    """B triplets.

    Attributes:
        source, target, truth: (B, 3, S, S) A1, B~ and A2, 0..1.
        source5, truth5: (B, 5, 2) landmarks5 of A1 and A2, in pixels.
        points: (B, K, 2) landmarks of B~, which are those of A2, in pixels; what the landmark pictures show.
    """

    source: Tensor
    target: Tensor
    truth: Tensor
    source5: Tensor
    truth5: Tensor
    points: Tensor

    def rows(self, numbers: Sequence[int]) -> TripletRows:
        """Some of them, in that order."""
        index = torch.as_tensor(list(numbers), dtype=torch.long)
        return TripletRows(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class Triplets(Protocol):
    """Triplets by number.

    Attributes:
        size: side S of the pictures.
        points: number K of landmarks.
    """

    size: int
    points: int

    def __len__(self) -> int: ...

    def rows(self, numbers: Sequence[int]) -> TripletRows:
        """Some of them, in that order."""


class TripletBatch:
    """Triplets in memory.

    Args:
        rows: all of them.

    Raises:
        BadTriplets: none.
    """

    def __init__(self, rows: TripletRows) -> None:
        if not len(rows.source):
            raise BadTriplets("triplets", expected="one or more", found="none", cure="give pictures of several persons")
        self.size = int(rows.source.shape[-1])
        self.points = int(rows.points.shape[1])
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows.source)

    def rows(self, numbers: Sequence[int]) -> TripletRows:
        """Some of them, in that order."""
        return self._rows.rows(numbers)


class TripletFolder:
    """The folder that `dreamid_build` writes: ``A1 A2 B_`` with pictures of shared names, and ``triplets.jsonl``.

    Args:
        folder: where it is.
        size: side of the training pictures; larger ones are made smaller.

    Raises:
        BadTriplets: no list, an empty one, a line that cannot be read, or a picture that is missing.
        BadImage: no picture that is large enough.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self._lines = _lines(folder)
        self.points = len(self._lines[0]["points"])
        self._pictures = {name: PictureFolder(folder / name, size) for name in (SOURCES, TARGETS, TRUTHS)}
        self._numbers = {
            name: {path.stem: number for number, path in enumerate(pictures.files)}
            for name, pictures in self._pictures.items()
        }
        for line in self._lines:
            missing = [name for name, known in self._numbers.items() if line["name"] not in known]
            if missing or len(line["points"]) != self.points:
                raise BadTriplets(
                    folder.name,
                    expected=f"{line['name']} in {', '.join(self._numbers)} of {size} pixels or more, and as many "
                    "points in every line",
                    found=f"none in {', '.join(missing)}" if missing else f"{len(line['points'])} points",
                    cure="build the folder again, or lower the size",
                )

    def __len__(self) -> int:
        return len(self._lines)

    def rows(self, numbers: Sequence[int]) -> TripletRows:
        """Some of them, in that order."""
        lines = [self._lines[number] for number in numbers]
        pictures = {
            name: torch.stack([self._pictures[name].picture(self._numbers[name][line["name"]]) for line in lines])
            for name in self._pictures
        }
        # Points were noted in pixels of the stored pictures.
        scales = torch.tensor([self.size / line["size"] for line in lines])[:, None, None]
        places = [
            (torch.tensor([line[name] for line in lines], dtype=torch.float32) + 0.5) * scales - 0.5
            for name in ("source5", "truth5", "points")
        ]
        return TripletRows(pictures[SOURCES], pictures[TARGETS], pictures[TRUTHS], *places)


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / LIST
    cure = "build the folder with tools/build_triplets.py"
    if not path.is_file():
        found = "no such file" if folder.is_dir() else "no such folder"
        raise BadTriplets(folder.name, expected=f"a folder with {LIST}", found=found, cure=cure)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise BadTriplets(path.name, expected="one JSON object per line", found=str(error), cure=cure) from error
    known = {"name", "size", "source5", "truth5", "points"}
    if not lines or any(not isinstance(line, dict) or not known <= line.keys() for line in lines):
        found = "a line without them" if lines else "no triplet"
        raise BadTriplets(path.name, expected=f"lines with {', '.join(sorted(known))}", found=found, cure=cure)
    return lines
