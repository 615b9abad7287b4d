"""Frames in which a track was lost: looked at again around the place where the face should be, or filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .boxes import clip, iou, scale, square
from .detect import Detector, Progress
from .tracking import TrackedFaces, near
from .types import Faces

# Side of the part that is searched, in sides of the face.
SEARCH = 3.0
# Share of the detector's own score that is enough where a face is expected.
EASIER = 0.6
SAME_FACE = 0.5


@dataclass(frozen=True, eq=False)
class Gap:
    """One frame in which a person is missing between two frames that have them."""

    frame: int
    person: int
    face: Faces


def find_gaps(tracks: TrackedFaces, max_gap: int) -> list[Gap]:
    """Every lost place with the face as it lies on the line between its neighbours in time.

    Only gaps of up to ``max_gap`` frames whose two ends overlap; a person who leaves or is cut away is not lost.
    """
    gaps = []
    for person in tracks.people:
        places = tracks.places(person)
        frames = sorted(places)
        for first, second in zip(frames, frames[1:], strict=False):
            if 1 < second - first <= max_gap + 1 and near(tracks, places, first, second):
                ends = [tracks.images[frame].take([places[frame]]) for frame in (first, second)]
                for frame in range(first + 1, second):
                    gaps.append(Gap(frame, person, _between(ends[0], ends[1], (frame - first) / (second - first))))
    return sorted(gaps, key=lambda gap: (gap.frame, gap.person))


def fill_gaps(tracks: TrackedFaces, max_gap: int) -> TrackedFaces:
    """Return the tracks with every lost place filled in by linear interpolation (facefusion's tracker)."""
    return _with_faces(tracks, [(gap.frame, gap.person, gap.face) for gap in find_gaps(tracks, max_gap)])


class FrameSource(Protocol):
    """Frames (H, W, 3) by number: a batch, or a clip that is read as it goes."""

    def __getitem__(self, number: int, /) -> Tensor: ...


def detect_again(
    tracks: TrackedFaces, images: FrameSource, detector: Detector, max_gap: int, on_progress: Progress | None = None
) -> TrackedFaces:
    """Return the tracks with what a second look found; only lost places are looked at, each once.

    Args:
        tracks: the tracks.
        images: (B, H, W, 3), 0..1, their frames; asked for in rising order.
        detector: asked for a lower score than usual, around the place where the face should be.
        max_gap: longest gap in frames.
        on_progress: called with (places done, places in all); may raise to cancel.
    """
    gaps, found = find_gaps(tracks, max_gap), []
    for done, gap in enumerate(gaps):
        face = _look(gap, images[gap.frame], detector, tracks.images[gap.frame])
        if face is not None:
            found.append((gap.frame, gap.person, face))
        if on_progress is not None:
            on_progress(done + 1, len(gaps))
    again = _with_faces(tracks, found, filled=False)
    told = f"{len(found)} of {len(gaps)} lost places were found by a second look"
    return replace(again, notes=(*again.notes, told)) if gaps else again


def _look(gap: Gap, image: Tensor, detector: Detector, others: Faces) -> Faces | None:
    height, width = int(image.shape[0]), int(image.shape[1])
    region = clip(square(scale(gap.face.boxes, SEARCH)), height, width).round().long()[0].tolist()
    x1, y1, x2, y2 = region
    if x2 - x1 < 2 or y2 - y1 < 2:
        return None
    seen = detector(image[None, y1:y2, x1:x2].contiguous(), detector.default_score * EASIER)[0]
    if not len(seen):
        return None
    shift = torch.tensor([x1, y1], dtype=seen.boxes.dtype)
    seen = Faces(seen.boxes + shift.repeat(2), seen.landmarks5 + shift, seen.scores)
    overlap = iou(gap.face.boxes, seen.boxes)[0]
    taken = iou(seen.boxes, others.boxes).amax(1) >= SAME_FACE if len(others) else torch.zeros(len(seen)).bool()
    overlap = overlap.masked_fill(taken, 0)
    best = int(overlap.argmax())
    if float(overlap[best]) < SAME_FACE / 2:
        return None
    return replace(seen.take([best]), embeddings=gap.face.embeddings)


def _between(first: Faces, second: Faces, share: float) -> Faces:
    embeddings = None
    if first.embeddings is not None and second.embeddings is not None:
        embeddings = first.embeddings.lerp(second.embeddings, share)
    return Faces(
        first.boxes.lerp(second.boxes, share),
        first.landmarks5.lerp(second.landmarks5, share),
        torch.minimum(first.scores, second.scores),
        embeddings,
    )


def _with_faces(tracks: TrackedFaces, added: Sequence[tuple[int, int, Faces]], filled: bool = True) -> TrackedFaces:
    """Return the tracks with further faces (frame, person, face), each frame ordered by person."""
    images, persons, marks = list(tracks.images), list(tracks.persons), list(tracks.filled)
    for frame, person, face in added:
        joined = _joined(images[frame], face) if len(images[frame]) else face
        numbers = (*persons[frame], person)
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        images[frame] = joined.take(order)
        persons[frame] = tuple(numbers[index] for index in order)
        told = (*marks[frame], filled)
        marks[frame] = tuple(told[index] for index in order)
    return replace(tracks, images=tuple(images), persons=tuple(persons), filled=tuple(marks))


def _joined(faces: Faces, more: Faces) -> Faces:
    embeddings = None
    if faces.embeddings is not None and more.embeddings is not None:
        embeddings = torch.cat([faces.embeddings, more.embeddings])
    return Faces(
        torch.cat([faces.boxes, more.boxes]),
        torch.cat([faces.landmarks5, more.landmarks5]),
        torch.cat([faces.scores, more.scores]),
        embeddings,
    )
