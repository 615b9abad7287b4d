"""File to file: a clip is decoded, changed and encoded chunk by chunk; everything beside its pictures stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from .errors import ClipNotWritten
from .facts import ClipFacts, read_facts
from .layout import layout_like
from .read import CHUNK, Damaged, read_frames
from .write import ClipWriter, WriteOptions

# Frames (B, H, W, 3) and the number of the first of them to as many changed frames of the same size.
Change = Callable[[Tensor, int], Tensor]
# Frames done and frames in all as far as known; may raise to cancel.
OnFrame = Callable[[int, int], None]


@dataclass(frozen=True)
class Transformed:
    """What was written.

    Attributes:
        path: the new clip.
        frames: as many as were read.
        notes: sentences about what could not be kept.
    """

    path: Path
    frames: int
    notes: tuple[str, ...] = ()


def transform_clip(
    source: Path,
    target: Path,
    change: Change,
    *,
    chunk: int = CHUNK,
    options: WriteOptions | None = None,
    damaged: Damaged = "error",
    on_frame: OnFrame | None = None,
    facts: ClipFacts | None = None,
    total: int | None = None,
) -> Transformed:
    """Write ``source`` with changed pictures as ``target``; memory for one chunk.

    Sound and subtitles are copied packet by packet. Stamps, time base, orientation, colour and metadata stay.

    Args:
        source: a clip.
        target: the new file; nothing is left of it when this raises.
        change: what to do with each chunk.
        chunk: frames of one chunk.
        options: see `WriteOptions`.
        damaged: see `media.read.read_frames`.
        on_frame: called after every frame that was written; may raise to cancel.
        facts: of ``source``, read anew where None.
        total: frames in all where the caller has counted them.

    Raises:
        BadClip: the source is damaged or no clip.
        ClipNotWritten: the target cannot be written, or is the source itself.
    """
    facts = facts or read_facts(source)
    if target.exists() and target.samefile(source):
        raise ClipNotWritten(
            target.name, expected="a new file", found="the clip itself", cure="choose another name or folder"
        )
    notes = [f"left out: {one}" for one in facts.left_out]
    mended, expected = 0, total or facts.frames
    with ClipWriter(target, layout_like(facts), options, copy=facts) as writer:
        for part in read_frames(source, chunk, facts=facts, damaged=damaged):
            if len(part):
                changed = change(part.frames, part.first)
            for place in range(len(part)):
                one = slice(place, place + 1)
                writer.write(changed[one], part.stamps[one], part.durations[one])
                if on_frame is not None:
                    on_frame(part.first + place + 1, max(expected, part.first + place + 1))
            mended += part.mended
            notes += [part.broken] if part.broken else []
    if mended:
        notes.append(f"{mended} frames had no time stamp of their own or one that did not rise; these were set")
    return Transformed(target, writer.frames, (*notes, *writer.notes))


@dataclass(frozen=True)
class ClipJob:
    """A clip and where it goes, for whoever reads it more than once before writing.

    Attributes:
        source: a clip.
        target: the new file.
        chunk: frames of one chunk.
        options: see `WriteOptions`.
        damaged: see `media.read.read_frames`.
    """

    source: Path
    target: Path
    chunk: int = CHUNK
    options: WriteOptions = field(default_factory=WriteOptions)
    damaged: Damaged = "error"

    @cached_property
    def facts(self) -> ClipFacts:
        """Of the source."""
        return read_facts(self.source)

    @property
    def expected(self) -> int:
        """Number of frames as far as the file says."""
        return self.facts.frames

    def frames(self) -> Iterator[Tensor]:
        """Chunks (B, H, W, 3), 0..1."""
        for part in read_frames(self.source, self.chunk, facts=self.facts, damaged=self.damaged):
            if len(part):
                yield part.frames

    def write(self, change: Change, on_frame: OnFrame | None = None, total: int | None = None) -> Transformed:
        """See `transform_clip`."""
        return transform_clip(
            self.source,
            self.target,
            change,
            chunk=self.chunk,
            options=self.options,
            damaged=self.damaged,
            on_frame=on_frame,
            facts=self.facts,
            total=total,
        )
