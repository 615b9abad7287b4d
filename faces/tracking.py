"""Who is who through a clip: faces linked from frame to frame by overlap and by embedding, under stable numbers.

Persons are numbered from 0 in the order in which they first appear. The number of frames never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from .boxes import iou
from .errors import FaceChoice
from .types import FaceBatch, Faces

# Below this overlap two neighbouring places of one person are a cut or a jump, across which nothing is averaged.
JUMP = 0.1


@dataclass(frozen=True, eq=False)
class TrackedFaces(FaceBatch):
    """Faces that know whose they are; the value of the socket LIKENESS_TRACKS, and good as LIKENESS_FACES.

    Attributes:
        persons: for each picture, the person's number of each face, rising.
        filled: for each picture, whether a face was filled in rather than found by the detector.
    """

    persons: tuple[tuple[int, ...], ...] = ()
    filled: tuple[tuple[bool, ...], ...] = ()

    def __post_init__(self) -> None:
        if tuple(map(len, self.persons)) != self.counts or tuple(map(len, self.filled)) != self.counts:
            raise FaceChoice(
                "tracked faces",
                expected="a person's number for every face",
                found=f"{sum(map(len, self.persons))} numbers for {sum(self.counts)} faces",
                cure="track the faces again",
            )

    def with_images(self, images: Sequence[Faces], *notes: str) -> FaceBatch:
        """Return plain faces: a choice by order or index forgets who is who."""
        return FaceBatch(tuple(images), self.image_size, self.detector, self.embedding_encoder, (*self.notes, *notes))

    @property
    def people(self) -> tuple[int, ...]:
        """Every person's number, rising."""
        return tuple(sorted({number for one in self.persons for number in one}))

    def places(self, person: int) -> dict[int, int]:
        """Index of the person's face by number of the picture, for the pictures that have it."""
        return {frame: one.index(person) for frame, one in enumerate(self.persons) if person in one}


@dataclass(frozen=True)
class TrackOptions:
    """What makes two faces the same person.

    Attributes:
        min_overlap: least intersection over union with the person's last box.
        min_similarity: least cosine with the person's mean embedding, where faces have embeddings; half of it is
            enough where the boxes overlap, since profiles are less alike.
        max_gap: frames that a person may be missing before the last box counts no more, and that are filled in.
    """

    min_overlap: float = 0.3
    min_similarity: float = 0.4
    max_gap: int = 10


@dataclass(eq=False)
class _Person:
    """A person while the clip is walked through."""

    box: Tensor
    frame: int
    embedding: Tensor | None


def track_faces(batch: FaceBatch, options: TrackOptions | None = None) -> TrackedFaces:
    """Number the faces of a clip by person.

    With embeddings a person who comes back after a gap or a cut gets the old number; without them only overlap links.
    Pairs are taken best first, each face and each person once a frame.

    Args:
        batch: faces of B frames in order of time.
        options: see `TrackOptions`.
    """
    options = options or TrackOptions()
    people: list[_Person] = []
    images, persons = [], []
    for frame, faces in enumerate(batch.images):
        numbers = _linked(people, faces, frame, options)
        for index in range(len(faces)):
            if index not in numbers:
                numbers[index] = len(people)
                people.append(_Person(faces.boxes[index], frame, None))
            _remember(people[numbers[index]], faces, index, frame)
        order = sorted(range(len(faces)), key=numbers.__getitem__)
        images.append(faces.take(order))
        persons.append(tuple(numbers[index] for index in order))
    filled = tuple((False,) * len(one) for one in persons)
    return _tracked(batch, images, persons, filled)


def smooth(tracks: TrackedFaces, radius: int) -> TrackedFaces:
    """Return the tracks with boxes and points averaged over ``radius`` frames before and after, nearer ones more.

    Radius 0 returns the same object. Nothing is averaged across a frame without the person, a cut or a jump.
    """
    if radius <= 0:
        return tracks
    boxes = [faces.boxes.clone() for faces in tracks.images]
    points = [faces.landmarks5.clone() for faces in tracks.images]
    for person in tracks.people:
        places = tracks.places(person)
        for run in _runs(tracks, places):
            found = torch.stack([tracks.images[frame].boxes[places[frame]] for frame in run])
            marks = torch.stack([tracks.images[frame].landmarks5[places[frame]] for frame in run])
            for frame, box, mark in zip(run, _averaged(found, radius), _averaged(marks, radius), strict=True):
                boxes[frame][places[frame]], points[frame][places[frame]] = box, mark
    images = [replace(faces, boxes=b, landmarks5=p) for faces, b, p in zip(tracks.images, boxes, points, strict=True)]
    return replace(tracks, images=tuple(images))


def select_people(tracks: TrackedFaces, numbers: Sequence[int]) -> TrackedFaces:
    """Return the tracks of some persons, under their numbers.

    Raises:
        FaceChoice: a person who is not there.
    """
    absent = [number for number in numbers if number not in tracks.people]
    if absent or not numbers:
        raise FaceChoice(
            "persons",
            expected=f"numbers of {', '.join(map(str, tracks.people)) or 'persons, of whom there is none'}",
            found=", ".join(map(str, absent)) or "no number",
            cure="look at the overlay of Track Faces and choose a number that is there",
        )
    kept = [[index for index, number in enumerate(one) if number in numbers] for one in tracks.persons]
    return _tracked(
        tracks,
        [faces.take(index) for faces, index in zip(tracks.images, kept, strict=True)],
        [tuple(one[index] for index in chosen) for one, chosen in zip(tracks.persons, kept, strict=True)],
        tuple(tuple(one[index] for index in chosen) for one, chosen in zip(tracks.filled, kept, strict=True)),
    )


def mean_embeddings(tracks: TrackedFaces) -> dict[int, Tensor]:
    """Mean embedding (D,) of each person who has one, over all frames, none brought to another length."""
    found: dict[int, list[Tensor]] = {}
    for faces, numbers in zip(tracks.images, tracks.persons, strict=True):
        if faces.embeddings is not None:
            for row, number in zip(faces.embeddings.float(), numbers, strict=True):
                found.setdefault(number, []).append(row)
    return {number: torch.stack(rows).mean(0) for number, rows in found.items()}


def tracks_table(tracks: TrackedFaces) -> str:
    """One line for each person: frames from and to, how many, how many of them filled in."""
    lines = [f"{len(tracks.people)} persons in {len(tracks)} frames"]
    for person in tracks.people:
        places = tracks.places(person)
        filled = sum(tracks.filled[frame][index] for frame, index in places.items())
        lines.append(
            f"person {person}: {len(places)} frames, from {min(places)} to {max(places)}, {filled} of them filled in"
        )
    empty = sum(not count for count in tracks.counts)
    return "\n".join([*lines, f"frames without a face: {empty}", *(f"note: {note}" for note in tracks.notes)])


def _tracked(
    batch: FaceBatch,
    images: Sequence[Faces],
    persons: Sequence[tuple[int, ...]],
    filled: tuple[tuple[bool, ...], ...],
) -> TrackedFaces:
    return TrackedFaces(
        tuple(images), batch.image_size, batch.detector, batch.embedding_encoder, batch.notes, tuple(persons), filled
    )


def _linked(people: Sequence[_Person], faces: Faces, frame: int, options: TrackOptions) -> dict[int, int]:
    """Person's number by index of the face, for the faces that continue somebody."""
    numbers: dict[int, int] = {}
    if not people or not len(faces):
        return numbers
    scores = _scores(people, faces, frame, options)
    for place in torch.argsort(scores.flatten(), descending=True, stable=True).tolist():
        person, index = divmod(place, len(faces))
        if scores[person, index] == float("-inf"):
            break
        if index not in numbers and person not in numbers.values():
            numbers[index] = person
    return numbers


def _scores(people: Sequence[_Person], faces: Faces, frame: int, options: TrackOptions) -> Tensor:
    """(persons, faces): how well each face continues each person; minus infinity where it cannot."""
    overlap = iou(torch.stack([one.box for one in people]), faces.boxes)
    recent = torch.tensor([frame - one.frame <= options.max_gap + 1 for one in people])
    overlap = overlap * recent[:, None]
    scores = torch.where(overlap >= options.min_overlap, overlap, -torch.inf)
    if faces.embeddings is None:
        return scores
    rows = functional.normalize(faces.embeddings.float(), dim=-1)
    for number, one in enumerate(people):
        if one.embedding is not None:
            cosine = rows @ functional.normalize(one.embedding, dim=-1)
            near = (overlap[number] >= options.min_overlap) & (cosine >= options.min_similarity / 2)
            same = near | (cosine >= options.min_similarity)
            scores[number] = torch.where(same, overlap[number] + cosine, -torch.inf)
    return scores


def _remember(person: _Person, faces: Faces, index: int, frame: int) -> None:
    person.box, person.frame = faces.boxes[index], frame
    if faces.embeddings is not None:
        row = functional.normalize(faces.embeddings[index].float(), dim=-1)
        person.embedding = row if person.embedding is None else person.embedding + row


def _runs(tracks: TrackedFaces, places: dict[int, int]) -> list[list[int]]:
    """Frames of one person, cut where a frame is missing or the box jumps."""
    runs: list[list[int]] = []
    for frame in sorted(places):
        last = runs[-1][-1] if runs else -2
        if last == frame - 1 and near(tracks, places, last, frame):
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def near(tracks: TrackedFaces, places: dict[int, int], first: int, second: int) -> bool:
    """Whether a person's boxes in two frames overlap enough to be one movement."""
    before, after = (tracks.images[frame].boxes[places[frame]][None] for frame in (first, second))
    return float(iou(before, after)) >= JUMP


def _averaged(values: Tensor, radius: int) -> Tensor:
    """Triangular average (T, ...) over time; at the ends over the frames that are there, to both sides alike."""
    averaged = torch.empty_like(values)
    for frame in range(len(values)):
        reach = min(radius, frame, len(values) - 1 - frame)
        window = values[frame - reach : frame + reach + 1]
        weights = reach + 1 - torch.arange(-reach, reach + 1).abs().to(values)
        averaged[frame] = torch.tensordot(weights / weights.sum(), window, dims=1)
    return averaged
