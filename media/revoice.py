"""File to file with another sound: a clip's pictures are changed and written beside it, as long as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from .audio import Waveform
from .layout import layout_like
from .rate import true_rate
from .read import FrameChunk, read_frames
from .transform import ClipJob, Transformed
from .write import ClipWriter

# Frames (B, H, W, 3), their numbers in the clip and the moments in seconds at which they are shown, to changed frames.
TimedChange = Callable[[Tensor, Sequence[int], Sequence[Fraction]], Tensor]


@dataclass(frozen=True, eq=False)
class RevoicedClip:
    """A clip that gets another sound, which begins with the first frame.

    Attributes:
        job: what is read and written; its own sound and subtitles are left out.
        sound: cut where the pictures end.
    """

    job: ClipJob
    sound: Waveform

    @cached_property
    def rate(self) -> Fraction:
        """Frames a second."""
        return true_rate(self.job.source, self.job.facts)

    @property
    def expected(self) -> int:
        """Number of frames as far as the file says."""
        return self.job.expected

    def frames(self) -> Iterator[Tensor]:
        """Chunks (B, H, W, 3), 0..1, from the beginning."""
        return self.job.frames()

    def write(self, change: TimedChange, frames: int, total: int) -> Transformed:
        """Write ``total`` frames of a clip that has ``frames``: past its end backwards, then forwards again.

        Within the clip's own length every frame keeps its time stamp; from there on the mean rate counts.

        Raises:
            BadClip: the source is damaged or no clip.
            ClipNotWritten: the target cannot be written.
        """
        job = self.job
        layout = replace(layout_like(job.facts), rate=self.rate)
        with ClipWriter(job.target, layout, job.options, audio=self._cut(total)) as writer:
            for part in self._played(frames, total):
                moments = [stamp * job.facts.time_base for stamp in part.stamps]
                writer.write(change(part.frames, part.numbers, moments), part.stamps, part.durations)
        left = tuple(f"left out: {stream.kind} of the clip" for stream in job.facts.others)
        return Transformed(job.target, writer.frames, (*left, *self._unheard(total), *writer.notes))

    def _unheard(self, total: int) -> tuple[str, ...]:
        """What is told of sound that is longer than the pictures by more than one of them."""
        seconds = self.sound.seconds - float(total / self.rate)
        return (f"left out: {seconds:.2f} s of the sound, behind the last frame",) if seconds * self.rate > 1 else ()

    def _cut(self, total: int) -> tuple[Tensor, int]:
        """The sound until the last picture, so that no player shows that on."""
        samples = max(1, round(total / self.rate * self.sound.sample_rate))
        return self.sound.samples[..., :samples], self.sound.sample_rate

    def _played(self, frames: int, total: int) -> Iterator[_Part]:
        shown, backwards = 0, False
        while shown < total:
            for chunk in self._backwards(frames) if backwards else self._forwards():
                part = self._part(chunk, backwards, shown, frames, total - shown)
                yield part
                shown += len(part.numbers)
                if shown >= total:
                    return
            backwards = not backwards

    def _part(self, chunk: FrameChunk, backwards: bool, shown: int, frames: int, most: int) -> _Part:
        """A chunk as it is shown."""
        kept = min(len(chunk), most)
        numbers = range(chunk.first, chunk.first + len(chunk))
        pictures = chunk.frames.flip(0) if backwards else chunk.frames
        order = list(numbers)[::-1] if backwards else list(numbers)
        stamps, durations = chunk.stamps[:kept], chunk.durations[:kept]
        if shown >= frames:
            unit = self.rate * self.job.facts.time_base
            stamps, durations = tuple(round((shown + place) / unit) for place in range(kept)), (0,) * kept
        return _Part(pictures[:kept], order[:kept], stamps, durations)

    def _forwards(self) -> Iterator[FrameChunk]:
        """Chunks whose first stamp is 0."""
        job, first = self.job, None
        for part in read_frames(job.source, job.chunk, facts=job.facts, damaged=job.damaged):
            if len(part):
                first = part.stamps[0] if first is None else first
                yield replace(part, stamps=tuple(stamp - first for stamp in part.stamps))

    def _backwards(self, frames: int) -> Iterator[FrameChunk]:
        """Chunks from the last to the first; each is read from the clip's beginning, so that numbers hold."""
        job = self.job
        for first in reversed(range(0, frames, job.chunk)):
            count = min(job.chunk, frames - first)
            yield from read_frames(job.source, count, facts=job.facts, first=first, count=count, damaged=job.damaged)


@dataclass(frozen=True, eq=False)
class _Part:
    frames: torch.Tensor
    numbers: Sequence[int]
    stamps: tuple[int, ...]
    durations: tuple[int, ...]
