"""Finding a person among the tracks of a clip by likeness, over all frames at once."""

from __future__ import annotations

import torch

from ..adapters.errors import IdentityMismatch
from ..adapters.identity import EMBEDDING, Identity
from ..faces.errors import NoFaceFound
from ..faces.tracking import TrackedFaces, mean_embeddings
from .similarity import same_person, similarity_matrix


def people_like(tracks: TrackedFaces, reference: Identity, limit: float | None = None) -> tuple[list[int], str]:
    """Return (numbers of the persons that are like the reference, most alike first; what was compared).

    A person's mean embedding over all frames counts, so that one turned head does not change who is chosen.

    Args:
        tracks: with embeddings.
        reference: of the same encoder.
        limit: see `evaluation.similarity.same_person`.

    Raises:
        IdentityMismatch: tracks without embeddings, or of another encoder.
        NoFaceFound: nobody is like the reference; names the nearest.
    """
    means = mean_embeddings(tracks)
    if not means or tracks.embedding_encoder is None:
        raise IdentityMismatch(
            "choice of persons by reference",
            expected=f"tracks with embeddings of the encoder {reference.encoder}",
            found="tracks without embeddings",
            cure="connect the encoder of the reference where faces are tracked",
        )
    numbers = sorted(means)
    people = Identity(tracks.embedding_encoder, {EMBEDDING: torch.stack([means[number] for number in numbers])})
    matrix = similarity_matrix(people, reference)
    same = same_person(matrix, limit).any(1)
    rising = matrix.metric == "cosine"
    best = matrix.values.amax(1) if rising else matrix.values.amin(1)
    order = torch.argsort(best, descending=rising, stable=True).tolist()
    told = "\n".join(f"person {numbers[row]}: {matrix.metric} {float(best[row]):.3f}" for row in order)
    chosen = [numbers[row] for row in order if bool(same[row])]
    if not chosen:
        raise NoFaceFound(
            "persons like the reference",
            expected="at least one",
            found=told.replace("\n", ", "),
            cure="change the limit, or give a clearer reference",
        )
    return chosen, told
