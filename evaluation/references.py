"""Which face of a photo is which of several known people, and which faces are nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..adapters.errors import IdentityMismatch
from ..adapters.identity import EMBEDDING, Identity
from ..faces.types import FaceBatch, Faces
from .similarity import SimilarityMatrix, best_similarity, same_person, similarity_matrix, threshold_for


@dataclass(frozen=True)
class Found:
    """One face and who it is.

    Attributes:
        image, face: numbers of picture and face, from 0.
        person: number of the nearest person, from 0, or None where there is nothing to compare.
        value: similarity or distance to that person.
        taken: whether the face counts as that person.
        reason: why not, where it does not.
    """

    image: int
    face: int
    person: int | None
    value: float
    taken: bool
    reason: str = ""


def find_people(
    batch: FaceBatch, people: Sequence[Identity], limit: float | None = None, once: bool = True
) -> list[Found]:
    """Tell for every face who it is.

    Args:
        batch: faces with embeddings (`adapters.encoders.base.with_embeddings`).
        people: one identity for each person; the most alike of its rows counts.
        limit: replaces the encoder's own threshold, in its metric.
        once: a person is in a picture once at most: the face most like them.

    Raises:
        IdentityMismatch: no people, or faces that were encoded by another encoder.
    """
    _check(batch, people)
    found: list[Found] = []
    for number, faces in enumerate(batch.images):
        found += _in_picture(number, faces, people, limit, once)
    return found


def chosen_faces(batch: FaceBatch, found: Sequence[Found]) -> FaceBatch:
    """The batch with only the faces that are somebody."""
    kept = [
        faces.take([one.face for one in found if one.image == number and one.taken])
        for number, faces in enumerate(batch.images)
    ]
    return replace(batch, images=tuple(kept))


def people_table(found: Sequence[Found], metric: str) -> str:
    """One line for each face: who it is and how alike, or why it is left alone."""
    taken = sum(one.taken for one in found)
    lines = [f"{taken} of {len(found)} faces matched, {len(found) - taken} left alone"]
    for one in found:
        near = "nobody to compare with" if one.person is None else f"person {one.person + 1}, {metric} {one.value:.3f}"
        fate = "matched" if one.taken else f"left alone ({one.reason})"
        lines.append(f"image {one.image} face {one.face}: {near}: {fate}")
    return "\n".join(lines)


def _in_picture(number: int, faces: Faces, people: Sequence[Identity], limit: float | None, once: bool) -> list[Found]:
    if len(faces) == 0 or faces.embeddings is None:
        return []
    crowd = [Identity(people[0].encoder, {EMBEDDING: row[None]}) for row in faces.embeddings]
    told = [_nearest(number, index, one, people, limit) for index, one in enumerate(crowd)]
    if not once:
        return told
    lower_is_nearer = threshold_for(people[0].encoder).metric == "euclidean"
    best: dict[int, Found] = {}
    for one in told:
        rival = best.get(-1 if one.person is None else one.person)
        if one.taken and one.person is not None:
            nearer = rival is None or (one.value < rival.value) == lower_is_nearer
            best[one.person] = one if nearer or rival is None else rival
    return [
        replace(one, taken=False, reason="another face is more like this person")
        if one.taken and one.person is not None and best[one.person] is not one
        else one
        for one in told
    ]


def _nearest(number: int, index: int, face: Identity, people: Sequence[Identity], limit: float | None) -> Found:
    matrices = [similarity_matrix(face, person) for person in people]
    values = [_best(matrix) for matrix in matrices]
    known = [value for value in values if value is not None]
    if not known:
        return Found(number, index, None, float("nan"), False, "nobody to compare with")
    nearest = max(known) if matrices[0].metric == "cosine" else min(known)
    person = values.index(nearest)
    same = bool(same_person(matrices[person], limit).any())
    return Found(number, index, person, nearest, same, "" if same else "not alike enough")


def _best(matrix: SimilarityMatrix) -> float | None:
    values: Tensor = matrix.values
    return None if bool(torch.isnan(values).all()) else best_similarity(matrix)


def _check(batch: FaceBatch, people: Sequence[Identity]) -> None:
    encoders = {person.encoder for person in people}
    if len(encoders) != 1 or batch.embedding_encoder not in encoders:
        raise IdentityMismatch(
            "match references",
            expected="people and faces of one encoder",
            found=f"people of {', '.join(sorted(encoders)) or 'none'} and faces of {batch.embedding_encoder or 'none'}",
            cure="connect the encoder that made all the identities",
        )
