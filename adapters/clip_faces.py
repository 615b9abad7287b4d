"""Faces through a clip that is too long to be held: found in chunks, followed, and kept in little room.

Whoever reads the clip is passed in, so that swaps, lip-sync, commands and tests share this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..faces.detect import Detector, Progress, detect_faces
from ..faces.errors import BadImage
from ..faces.track_gaps import detect_again, fill_gaps
from ..faces.tracking import TrackedFaces, TrackOptions, smooth, track_faces
from ..faces.types import FaceBatch, Faces
from .encoders.base import FaceEncoder, with_embeddings


class ClipFrames(Protocol):
    """A clip that can be read as often as needed."""

    @property
    def expected(self) -> int:
        """Number of frames as far as known beforehand."""
        ...

    def frames(self) -> Iterable[Tensor]:
        """Chunks (B, H, W, 3), 0..1, from the beginning."""
        ...


@dataclass(frozen=True)
class FollowOptions:
    """How faces are found and followed.

    Attributes:
        score: least score of a face; None for the detector's own.
        track: number faces by person through the clip.
        tracks: what makes two faces one person.
        fill: fill frames in which a person is lost with points between those before and after.
        smooth: average points over so many frames before and after; 0 leaves every point exactly as found.
    """

    score: float | None = None
    track: bool = True
    tracks: TrackOptions = TrackOptions()
    fill: bool = True
    smooth: int = 0


def find_faces(
    clip: ClipFrames,
    detector: Detector,
    encoder: FaceEncoder | None = None,
    options: FollowOptions | None = None,
    on_progress: Progress | None = None,
) -> FaceBatch:
    """Return the faces of every frame, numbered by person where that is wanted.

    With tracks each frame is looked at once; a second look goes only where a person is lost, around the place where
    the face should be. Only a clip in which nothing at all is found is searched again with borders and other sizes.
    """
    options = options or FollowOptions()
    found = _looked_through(clip, detector, encoder, options, not options.track, on_progress)
    if not options.track:
        return found
    if not any(found.counts):
        found = _looked_through(clip, detector, encoder, options, True, on_progress)
    tracks = track_faces(found, options.tracks)
    gap = options.tracks.max_gap
    tracks = detect_again(tracks, Replay(clip.frames), detector, gap)
    return smooth(fill_gaps(tracks, gap) if options.fill else tracks, options.smooth)


def _looked_through(
    clip: ClipFrames,
    detector: Detector,
    encoder: FaceEncoder | None,
    options: FollowOptions,
    retry: bool,
    on_progress: Progress | None,
) -> FaceBatch:
    packed = PackedFaces()
    size, made_by = (0, 0), None
    for frames in clip.frames():
        size = (int(frames.shape[1]), int(frames.shape[2]))
        before = len(packed)

        def told(done: int, _: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, clip.expected)

        batch, _ = detect_faces(frames, detector, options.score, "keep", "frame", retry, told)
        batch = batch if encoder is None else with_embeddings(batch, frames, encoder)
        made_by = batch.embedding_encoder
        for faces in batch.images:
            packed.add(faces)
    return FaceBatch(packed.unpacked(), size, detector.name, made_by)


class Replay:
    """Frames of a clip by number, in rising order, without holding more than a chunk.

    Args:
        frames: gives chunks from the beginning; called when the first frame is asked for.
    """

    def __init__(self, frames: Callable[[], Iterable[Tensor]]) -> None:
        self._frames = frames
        self._chunks: Iterator[Tensor] | None = None
        self._chunk, self._start = torch.zeros(0), 0

    def __getitem__(self, number: int) -> Tensor:
        """Frame ``number`` (H, W, 3); not smaller than the last one asked for."""
        if self._chunks is None:
            self._chunks = iter(self._frames())
        while number >= self._start + len(self._chunk):
            self._start += len(self._chunk)
            self._chunk = next(self._chunks)
        return self._chunk[number - self._start]


class PackedFaces:
    """Faces of many frames in one block of memory.

    A few small tensors for each frame, made between large ones that are freed again, would keep the allocator from
    using that room twice, and a clip's memory would grow with its length.
    """

    def __init__(self) -> None:
        self._counts: list[tuple[int, int]] = []
        self._values = bytearray()

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, faces: Faces) -> None:
        """Append the faces of the next frame."""
        rows = [faces.boxes, faces.landmarks5.flatten(1), faces.scores[:, None]]
        rows += [] if faces.embeddings is None else [faces.embeddings.flatten(1)]
        values = torch.cat([row.float().cpu() for row in rows], dim=1)
        self._counts.append((len(faces), values.shape[1]))
        self._values += values.numpy().tobytes()

    def unpacked(self) -> tuple[Faces, ...]:
        """The faces of every frame, as they were."""
        if not self._values:
            return tuple(Faces.none() for _ in self._counts)
        everything, start, found = torch.frombuffer(self._values, dtype=torch.float32).clone(), 0, []
        for count, width in self._counts:
            rows = everything[start : start + count * width].view(count, width)
            start += count * width
            known = rows[:, 15:] if width > 15 else None
            found.append(Faces(rows[:, :4], rows[:, 4:14].reshape(count, 5, 2), rows[:, 14], known))
        return tuple(found)


def part_of(batch: FaceBatch, start: int, stop: int) -> FaceBatch:
    """Return the faces of some frames that follow each other, with their persons.

    Raises:
        BadImage: frames beyond those that were searched.
    """
    if stop > len(batch):
        raise BadImage(
            "clip",
            expected=f"the {len(batch)} frames in which faces were looked for",
            found=f"a frame {stop - 1}",
            cure="run it again while nothing writes to the clip",
        )
    images = batch.images[start:stop]
    if isinstance(batch, TrackedFaces):
        return replace(batch, images=images, persons=batch.persons[start:stop], filled=batch.filled[start:stop])
    return replace(batch, images=images)
