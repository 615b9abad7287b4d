"""Arithmetic of id embeddings: similarity, matching, averaging, and the balance of a face swap."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def cosine_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return cosines (N, M), -1..1, of embeddings (N, D) and (M, D)."""
    return F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).T


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - cosine (N, M), 0..2, of embeddings (N, D) and (M, D)."""
    return 1 - cosine_similarity(first, second)


def same_face(first: Tensor, second: Tensor, distance: float = 0.3) -> Tensor:
    """Return (N, M) bool: half the cosine distance is below ``distance`` (facefusion, 0.3 = a cosine above 0.4)."""
    return cosine_distance(first, second) / 2 < distance


def average(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return (mean (D,), mean of the unit embeddings (D,), itself not of unit length) of embeddings (N, D).

    As facefusion makes one identity of several photos (face_creator.py, average_face_identity).
    """
    return embeddings.mean(0), F.normalize(embeddings, dim=-1).mean(0)


def balance(source: Tensor, target: Tensor, weight: float) -> Tensor:
    """Return the source embeddings (N, D) moved along the line to the target's (N, D).

    ``weight`` 0.5 leaves the source as it is, 0 mixes 35 % of the target in, 1 pushes as far away from it
    (facefusion, face_swapper.py, balance_source_embedding). Both must be of the same scale: unit vectors for
    networks fed with unit vectors.
    """
    share = 0.35 - 0.7 * min(max(weight, 0.0), 1.0)
    return source * (1 - share) + target * share
