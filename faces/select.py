"""Choosing faces: by order, by number, by likeness to a reference, by gender or age."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .boxes import area
from .embeddings import cosine_similarity
from .errors import FaceChoice
from .typed import typed
from .types import FaceBatch, Faces

ORDERS: tuple[str, ...] = (
    "largest",
    "smallest",
    "left-right",
    "right-left",
    "top-bottom",
    "bottom-top",
    "best score",
    "worst score",
)
OnMissing = Literal["error", "keep"]


def order_faces(faces: Faces, order: str) -> list[int]:
    """Return the indices of the faces in ``order``, one of `ORDERS`; equal faces keep their places.

    Left and top are those of the boxes, as in facefusion (face_selector.py).

    Raises:
        FaceChoice: an order that does not exist.
    """
    keys = {
        "largest": (area(faces.boxes), True),
        "smallest": (area(faces.boxes), False),
        "left-right": (faces.boxes[:, 0], False),
        "right-left": (faces.boxes[:, 0], True),
        "top-bottom": (faces.boxes[:, 1], False),
        "bottom-top": (faces.boxes[:, 1], True),
        "best score": (faces.scores, True),
        "worst score": (faces.scores, False),
    }
    if order not in keys:
        raise FaceChoice(
            "order of faces", expected="one of " + ", ".join(ORDERS), found=repr(order), cure="choose one of the list"
        )
    key, descending = keys[order]
    return torch.argsort(key, descending=descending, stable=True).tolist()


def parse_indices(text: str, count: int, what: str = "face numbers") -> list[int]:
    """Return the numbers of a list like ``"0,2"`` or ``"0-2,5"``; an empty text means all ``count`` faces.

    Numbers start at 0, may repeat and keep the order in which they are written.

    Raises:
        FaceChoice: a part that is no number or range, or a number beyond the faces that are there.
    """
    ranges = _ranges_of(text, count, what)
    beyond = [max(numbers.start, count) for numbers in ranges if numbers.stop > count]
    if beyond:
        raise FaceChoice(
            what,
            expected=_available(count),
            found=f"number {beyond[0]}",
            cure="choose a number that is there, or lower the detector's score",
        )
    return [number for numbers in ranges for number in numbers]


def _ranges_of(text: str, count: int, what: str) -> list[range]:
    parts = typed(text).replace(",", " ").split()
    return [_range_of(part, what) for part in parts] if parts else [range(count)]


def _indices_present(text: str, count: int, what: str) -> tuple[list[int], bool]:
    """Return (the numbers of the list that are there, whether one is not)."""
    ranges = _ranges_of(text, count, what)
    present = [number for numbers in ranges for number in range(numbers.start, min(numbers.stop, count))]
    return present, any(numbers.stop > count for numbers in ranges)


def _available(count: int) -> str:
    if count == 0:
        return "a picture with faces (this one has 0)"
    return "number 0 (there is 1 face)" if count == 1 else f"numbers from 0 to {count - 1} (there are {count} faces)"


def _range_of(part: str, what: str) -> range:
    found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
    if found and (numbers := range(int(found[1]), int(found[2] or found[1]) + 1)):
        return numbers
    raise FaceChoice(
        what,
        expected="numbers from 0 and rising ranges, such as 0,2 or 0-2",
        found=repr(part),
        cure="write the numbers with commas between them, or leave the field empty for all faces",
    )


def choose(faces: Faces, order: str = "largest", indices: str = "", what: str = "face numbers") -> Faces:
    """Return the faces sorted by ``order`` and then picked by ``indices`` (see `parse_indices`)."""
    ordered = order_faces(faces, order)
    return faces.take([ordered[number] for number in parse_indices(indices, len(faces), what)])


def choose_in_batch(
    batch: FaceBatch,
    order: str = "largest",
    indices: str = "",
    on_missing_face: OnMissing = "error",
    keep_empty: bool = False,
) -> FaceBatch:
    """Return the batch with the chosen faces of each picture; the number of pictures never changes.

    Args:
        batch: faces of B pictures.
        order: one of `ORDERS`.
        indices: see `parse_indices`.
        on_missing_face: "error" stops at the first picture that lacks a named face; "keep" takes those that are
            there and says in the notes which pictures lacked one.
        keep_empty: under "error" too, a picture without any face (which detection was told to keep) stays as it is;
            detection's note names it.

    Raises:
        FaceChoice: naming the picture and how many faces it has.
    """
    chosen: list[Faces] = []
    lacking: list[int] = []
    for number, faces in enumerate(batch.images):
        what = f"face numbers for image {number}"
        left_empty = keep_empty and len(faces) == 0
        if on_missing_face == "error" and not left_empty:
            chosen.append(choose(faces, order, indices, what))
            continue
        ordered = order_faces(faces, order)
        present, lacks = _indices_present(indices, len(faces), what)
        chosen.append(faces.take([ordered[index] for index in present]))
        if lacks and not left_empty:
            lacking.append(number)
    notes = [f"faces {indices.strip()} not all present in images {_listed(lacking)}"] if lacking else []
    return batch.with_images(chosen, *notes)


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:10])
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"


def rank_by_similarity(faces: Faces, reference: Tensor, min_similarity: float = 0.4) -> tuple[list[int], Tensor]:
    """Return (indices of the faces that match, most similar first; cosines (F,) of all faces).

    Args:
        faces: with embeddings (F, D).
        reference: (D,) or (R, D) of the same encoder; with several, the best of them counts.
        min_similarity: cosine below which a face is another person; facefusion's default distance 0.3 is 0.4 here.

    Raises:
        FaceChoice: the faces carry no embeddings, or of another length.
    """
    reference = reference.reshape(-1, reference.shape[-1]).float().cpu()
    if len(faces) == 0:
        return [], torch.zeros(0)
    if faces.embeddings is None or faces.embeddings.shape[-1] != reference.shape[-1]:
        found = "none" if faces.embeddings is None else f"embeddings of {faces.embeddings.shape[-1]} numbers"
        raise FaceChoice(
            "choice by reference",
            expected=f"faces with embeddings of {reference.shape[-1]} numbers",
            found=found,
            cure="analyse the faces with the encoder that made the reference",
        )
    similarity = cosine_similarity(faces.embeddings.float().cpu(), reference).amax(1)
    order = torch.argsort(similarity, descending=True, stable=True).tolist()
    return [index for index in order if float(similarity[index]) >= min_similarity], similarity


def nearest_face(faces: Faces, reference: Tensor, min_similarity: float = 0.4, what: str = "reference face") -> Faces:
    """Return the one face most similar to the reference.

    Raises:
        FaceChoice: none reaches ``min_similarity``; the sentence gives the number of faces and the best cosine.
    """
    matches, similarity = rank_by_similarity(faces, reference, min_similarity)
    if not matches:
        best = f", the nearest at {float(similarity.max()):.2f}" if len(similarity) else ""
        raise FaceChoice(
            what,
            expected=f"a face with a similarity of {min_similarity:g} or more",
            found=f"{len(faces)} {'face' if len(faces) == 1 else 'faces'}{best}",
            cure="lower min_similarity, or give a clearer reference",
        )
    return faces.take(matches[:1])


def filter_gender(genders: Sequence[str], wanted: str) -> list[int]:
    """Return the indices of the faces of one gender."""
    return [index for index, gender in enumerate(genders) if gender == wanted]


def filter_age(ages: Sequence[range], wanted: range) -> list[int]:
    """Return the indices of the faces whose age range shares a year with ``wanted``; upper ends are exclusive."""
    return [index for index, age in enumerate(ages) if max(age.start, wanted.start) < min(age.stop, wanted.stop)]
