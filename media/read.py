"""Frames of a clip in chunks of bounded memory, with the time stamps they have in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .av_package import failures, opened
from .errors import BadClip
from .facts import ClipFacts, picture_stream, read_facts, undecodable
from .orientation import as_seen

Damaged = Literal["error", "keep"]
DAMAGED: tuple[str, ...] = get_args(Damaged)
# Frames of one chunk; 16 of 1920 x 1080 take 400 MB as float32.
CHUNK = 16


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """Frames that follow each other.

    Attributes:
        frames: (B, H, W, 3) RGB as a player shows them, float32 0..1 or uint8.
        stamps: time of each frame in units of the clip's time base, rising.
        durations: how long each frame is seen, in the same unit; 0 where the file does not say.
        first: number of the first frame in the clip, counted from 0.
        mended: how many stamps were missing or did not rise, and were set.
        broken: what was wrong at the end of a damaged clip that is read nevertheless.
    """

    frames: Tensor
    stamps: tuple[int, ...]
    durations: tuple[int, ...]
    first: int
    mended: int = 0
    broken: str = ""

    def __len__(self) -> int:
        return len(self.stamps)


class _Clock:
    """Rising stamps: missing ones follow by the clip's mean step, those that do not rise by one unit."""

    def __init__(self, step: int) -> None:
        self._step, self._last, self.mended = step, -1, 0
        self._started = False

    def next(self, stamp: int | None) -> int:
        if stamp is None:
            self.mended += 1
            stamp = self._last + self._step if self._started else 0
        elif self._started and stamp <= self._last:
            self.mended += 1
            stamp = self._last + 1
        self._last, self._started = stamp, True
        return stamp


def read_frames(
    path: Path,
    chunk: int = CHUNK,
    *,
    facts: ClipFacts | None = None,
    first: int = 0,
    count: int | None = None,
    dtype: torch.dtype = torch.float32,
    damaged: Damaged = "error",
) -> Iterator[FrameChunk]:
    """Read a clip in chunks; what is not asked for any more stays unread.

    Every frame is decoded from the beginning on, so that ``first`` is exact in every format.

    Args:
        path: the file.
        chunk: frames of one chunk, the last one may have fewer.
        facts: of `read_facts`, read anew where None.
        first: number of the first frame wanted.
        count: frames wanted; None for all.
        dtype: ``torch.float32`` gives 0..1, ``torch.uint8`` 0..255.
        damaged: a clip that goes bad on the way raises, or ends there (and the last chunk says why).

    Raises:
        BadClip: not a clip, damaged, or frames of several sizes.
        ClipPackageMissing: PyAV is not installed.
    """
    facts = facts or read_facts(path)
    clock = _Clock(facts.step)
    gathered: list[tuple[Tensor, int, int]] = []
    number, told, broken = 0, 0, ""
    try:
        for frame in _decoded(path, facts):
            stamp = clock.next(frame.pts)
            if number >= first:
                gathered.append((_pixels(frame, facts, dtype), stamp, int(getattr(frame, "duration", 0) or 0)))
            number += 1
            if len(gathered) >= max(1, chunk):
                yield _chunk(gathered, facts, number, clock.mended - told)
                gathered, told = [], clock.mended
            if count is not None and number >= first + count:
                break
    except _Broken as stop:
        if damaged == "error":
            raise undecodable(path, number, stop.cause) from stop.cause
        broken = str(undecodable(path, number, stop.cause))
    if gathered or broken:
        yield _chunk(gathered, facts, number, clock.mended - told, broken)


def read_stamps(path: Path, facts: ClipFacts | None = None) -> tuple[int, ...]:
    """Return the time of every frame in units of the clip's time base, as `read_frames` gives them.

    Raises:
        BadClip: not a clip, or damaged.
    """
    facts = facts or read_facts(path)
    clock, stamps = _Clock(facts.step), []
    try:
        for frame in _decoded(path, facts):
            stamps.append(clock.next(frame.pts))
    except _Broken as stop:
        raise undecodable(path, len(stamps), stop.cause) from stop.cause
    return tuple(stamps)


class _Broken(Exception):  # noqa: N818 (it never leaves this file)
    """Where decoding stopped; carries PyAV's own error."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _decoded(path: Path, facts: ClipFacts) -> Iterator[Any]:
    with opened(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise _Broken(ValueError(f"a frame of which only {packet.size} bytes are there"))
                yield from packet.decode()
        except failures() as cause:
            raise _Broken(cause) from cause


def _pixels(frame: Any, facts: ClipFacts, dtype: torch.dtype) -> Tensor:
    """(H, W, 3) as stored."""
    size = (facts.width, facts.height) if facts.orientation.transposed else (facts.height, facts.width)
    if (frame.height, frame.width) != size:
        raise BadClip(
            facts.path.name,
            expected=f"frames of one size, {size[1]} x {size[0]}",
            found=f"one of {frame.width} x {frame.height}",
            cure="cut the clip where its size changes, or convert it to one size",
        )
    deep = facts.bits > 8 and dtype != torch.uint8
    colour = {"src_color_range": facts.colour.range} if facts.colour.range else {}
    rgb = frame.reformat(format="rgb48le" if deep else "rgb24", dst_color_range=2, **colour)
    values = torch.from_numpy(rgb.to_ndarray().astype("int32") if deep else rgb.to_ndarray())
    if dtype == torch.uint8:
        return values
    return values.to(dtype) / (65535 if deep else 255)


def _chunk(
    gathered: list[tuple[Tensor, int, int]], facts: ClipFacts, number: int, mended: int, broken: str = ""
) -> FrameChunk:
    frames, stamps, durations = zip(*gathered, strict=True) if gathered else ((), (), ())
    stacked = torch.stack(frames) if frames else torch.zeros(0, *_stored(facts), 3)
    seen = as_seen(stacked, facts.orientation)
    return FrameChunk(seen, tuple(stamps), tuple(durations), number - len(gathered), mended, broken)


def _stored(facts: ClipFacts) -> tuple[int, int]:
    return (facts.width, facts.height) if facts.orientation.transposed else (facts.height, facts.width)
