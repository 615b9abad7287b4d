"""How alike two identities are, and from where on two faces count as one person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.errors import IdentityMismatch
from ..adapters.identity import EMBEDDING, Identity
from ..faces.errors import NoFaceFound
from ..faces.types import FaceBatch, Faces

Metric = Literal["cosine", "euclidean"]


@dataclass(frozen=True)
class Threshold:
    """When two embeddings of one encoder count as one person.

    Attributes:
        metric: ``"cosine"``: similarity at least `value`; ``"euclidean"``: distance below `value`.
        value: the limit.
        source: where it comes from.
        convention: True where it is a habit of tools and not a value that the encoder's authors measured.
    """

    metric: Metric
    value: float
    source: str
    convention: bool


_FACEFUSION = "facefusion face_selector.py with this recogniser: (1 - cosine) / 2 < 0.3"
_BORROWED = "the value for ArcFace; no published one for this encoder, check on your own faces"

# By encoder id; an id that goes on after the name, such as transface_s, belongs to the name.
THRESHOLDS: dict[str, Threshold] = {
    "dlib_resnet": Threshold("euclidean", 0.6, "dlib, face_recognition.py: 99.38 % on LFW at 0.6", convention=False),
    "arcface_buffalo_l": Threshold("cosine", 0.4, _FACEFUSION, convention=True),
    "arcface_antelopev2": Threshold("cosine", 0.4, _BORROWED, convention=True),
    "arcface_vit": Threshold("cosine", 0.4, _BORROWED, convention=True),
    "transface": Threshold("cosine", 0.4, _BORROWED, convention=True),
    "topofr": Threshold("cosine", 0.4, _BORROWED, convention=True),
    # Last, for every other network of the kind.
    "arcface": Threshold("cosine", 0.4, _BORROWED, convention=True),
}


@dataclass(frozen=True, eq=False)
class SimilarityMatrix:
    """Similarities or distances of all pairs.

    Attributes:
        values: (Na, Nb) float32; NaN where a row stands for a picture without a face.
        encoder: id of the encoder of both sides.
        threshold: metric and limit.
    """

    values: Tensor
    encoder: str
    threshold: Threshold

    @property
    def metric(self) -> Metric:
        """What `values` holds."""
        return self.threshold.metric


def threshold_for(encoder: str) -> Threshold:
    """The table's entry for an encoder id.

    Raises:
        IdentityMismatch: an encoder that has none.
    """
    for name, threshold in THRESHOLDS.items():
        if encoder == name or encoder.startswith(f"{name}_"):
            return threshold
    raise IdentityMismatch(
        "similarity",
        expected=f"an identity of one of {', '.join(THRESHOLDS)}",
        found=f"encoder {encoder}",
        cure="encode both with one of these encoders",
    )


def similarity_matrix(a: Identity, b: Identity) -> SimilarityMatrix:
    """Compare every face of ``a`` (Na) with every face of ``b`` (Nb) by the metric of their encoder.

    Raises:
        IdentityMismatch: two encoders, embeddings of two widths, or none.
    """
    left, right = a.features.get(EMBEDDING), b.features.get(EMBEDDING)
    if a.encoder != b.encoder or left is None or right is None or left.shape[-1] != right.shape[-1]:
        raise IdentityMismatch(
            "similarity",
            expected=f"two identities of one encoder ({a.encoder}, {_width(left)})",
            found=f"{b.encoder}, {_width(right)}",
            cure="encode both with the same encoder",
        )
    threshold = threshold_for(a.encoder)
    values = _cosine(left, right) if threshold.metric == "cosine" else _euclidean(left, right)
    faceless = left.eq(0).all(-1)[:, None] | right.eq(0).all(-1)[None, :]
    return SimilarityMatrix(values.masked_fill(faceless, float("nan")), a.encoder, threshold)


def same_person(matrix: SimilarityMatrix, limit: float | None = None) -> Tensor:
    """(Na, Nb) bool: pairs that count as one person; ``limit`` replaces the table's value. No face is nobody."""
    limit = matrix.threshold.value if limit is None else limit
    return matrix.values >= limit if matrix.metric == "cosine" else matrix.values < limit


def best_matches(matrix: SimilarityMatrix) -> list[int | None]:
    """For each row the column that is most alike, or None where there is none to compare."""
    worst = float("-inf")
    score = (matrix.values if matrix.metric == "cosine" else -matrix.values).nan_to_num(nan=worst)
    if score.shape[1] == 0:
        return [None] * score.shape[0]
    best, column = score.max(dim=1)
    return [int(c) if s > worst else None for s, c in zip(best.tolist(), column.tolist(), strict=True)]


def best_similarity(matrix: SimilarityMatrix) -> float:
    """The best value of all pairs: the highest cosine, or the smallest distance.

    Raises:
        NoFaceFound: no pair has a face on both sides.
    """
    known = matrix.values[~matrix.values.isnan()]
    if known.numel() == 0:
        cure = "use photos in which a face is found"
        raise NoFaceFound("similarity", expected="a face on both sides", found="none to compare", cure=cure)
    return float(known.max() if matrix.metric == "cosine" else known.min())


def select_by_reference(face_batch: FaceBatch, reference: Identity, limit: float | None = None) -> FaceBatch:
    """Keep in each picture the one face most like a person, or none where nobody is within the limit.

    Args:
        face_batch: with embeddings (`adapters.encoders.base.with_embeddings`).
        reference: one or more faces of that person; the most alike of them counts.
        limit: replaces the threshold of the encoder, in its own metric (a least cosine, or a largest distance).

    Raises:
        IdentityMismatch: faces without embeddings, or with those of another encoder.
    """
    made_by = face_batch.embedding_encoder
    if made_by != reference.encoder:
        raise IdentityMismatch(
            "choice by reference",
            expected=f"faces encoded by {reference.encoder}, which made the reference",
            found=f"faces encoded by {made_by}" if made_by else "faces that were not encoded",
            cure="connect the encoder that made the reference",
        )
    kept, notes = [], []
    for number, faces in enumerate(face_batch.images):
        chosen, note = _most_alike(faces, reference, limit)
        kept.append(chosen)
        notes += [f"image {number} (counted from 0): {note}"] if note else []
    if reference.masked:
        notes.append("the reference was encoded without background and these faces with it; expect lower similarities")
    return face_batch.with_images(kept, *notes)


def table_text(
    matrix: SimilarityMatrix, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> str:
    """A plain-text table of all values with the best match of each row and whether it is one person.

    Args:
        matrix: from `similarity_matrix`.
        rows: Na names; ``a1 a2 ...`` by default.
        columns: Nb names; ``b1 b2 ...`` by default.
    """
    row_names = _names(rows, matrix.values.shape[0], "a")
    column_names = _names(columns, matrix.values.shape[1], "b")
    same, best = same_person(matrix), best_matches(matrix)
    lines = [["", *column_names, "best match"]]
    for number, name in enumerate(row_names):
        cells = ["no face" if value != value else f"{value:.3f}" for value in matrix.values[number].tolist()]
        lines.append([name, *cells, _verdict(best[number], same[number], column_names)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([_headline(matrix), *table])


def _most_alike(faces: Faces, reference: Identity, limit: float | None) -> tuple[Faces, str]:
    """The face to keep, and a sentence if there is none to keep among some."""
    if len(faces) == 0 or faces.embeddings is None:
        return Faces.none(), ""
    crowd = Identity(reference.encoder, {EMBEDDING: faces.embeddings})
    matrix = similarity_matrix(reference, crowd)
    best = best_similarity(matrix)
    # The limit and the search treat both metrics alike; NaN (a reference without a face) is never the best.
    _, column = (matrix.values == best).nonzero()[0].tolist()
    if not bool(same_person(matrix, limit)[:, column].any()):
        return Faces.none(), f"no face of the reference person (nearest: {matrix.metric} {best:.3f})"
    return faces.take([column]), ""


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.normalize(a.float(), dim=-1) @ functional.normalize(b.float(), dim=-1).T


def _euclidean(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _width(embedding: Tensor | None) -> str:
    return "no embedding" if embedding is None else f"embedding width {embedding.shape[-1]}"


def _names(given: Sequence[str] | None, count: int, letter: str) -> list[str]:
    names = list(given) if given is not None else [f"{letter}{number + 1}" for number in range(count)]
    if len(names) != count:
        raise IdentityMismatch(
            "names of the similarity table", expected=f"{count} names", found=str(len(names)), cure="name every face"
        )
    return names


def _verdict(best: int | None, same: Tensor, names: Sequence[str]) -> str:
    if best is None:
        return "none"
    return f"{names[best]} ({'same person' if bool(same[best]) else 'another person'})"


def _headline(matrix: SimilarityMatrix) -> str:
    threshold = matrix.threshold
    rule = f"cosine similarity, same person from {threshold.value:g}"
    if threshold.metric == "euclidean":
        rule = f"euclidean distance, same person below {threshold.value:g}"
    origin = "a convention" if threshold.convention else "measured by its authors"
    return f"{matrix.encoder}: {rule} ({origin}: {threshold.source})"
