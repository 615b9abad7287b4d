"""Which faces of a clip are meant: by person's number, by order in each frame, or by likeness to somebody."""

from __future__ import annotations

from collections.abc import Callable

from ..adapters.identity import Identity
from ..faces.select import choose_in_batch, parse_indices
from ..faces.tracking import TrackedFaces, select_people
from ..faces.types import FaceBatch
from .similarity import select_by_reference
from .tracks import people_like


def clip_choice(
    order: str, numbers: str, reference: Identity | None = None, limit: float | None = None
) -> Callable[[FaceBatch], FaceBatch]:
    """Return what chooses among the faces of all frames; the number of frames never changes.

    Tracked faces are chosen once for the whole clip, others anew in each frame. A frame that lacks the chosen face is
    left without one.

    Args:
        order: how the faces of a frame are numbered where they are not tracked, see `faces.select.ORDERS`.
        numbers: such as 0 or 0,2; of persons where faces are tracked. Empty keeps all.
        reference: keeps those like this person instead of numbers.
        limit: least cosine (for dlib largest distance); None for the encoder's own.
    """

    def choose(faces: FaceBatch) -> FaceBatch:
        if isinstance(faces, TrackedFaces):
            return _of_tracks(faces, numbers, reference, limit)
        if reference is not None:
            return select_by_reference(faces, reference, limit)
        return choose_in_batch(faces, order, numbers, on_missing_face="keep", keep_empty=True)

    return choose


def _of_tracks(faces: TrackedFaces, numbers: str, reference: Identity | None, limit: float | None) -> TrackedFaces:
    if not faces.people:
        return faces
    if reference is not None:
        return select_people(faces, people_like(faces, reference, limit)[0])
    return select_people(faces, parse_indices(numbers, max(faces.people) + 1, "persons"))
