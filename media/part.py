"""A part of a clip in memory, and pictures written like the clip they came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from .audio import Waveform, read_audio
from .errors import BadAudio, BadClip, ClipNotWritten
from .facts import ClipFacts, read_facts
from .layout import layout_like, layout_of
from .read import CHUNK, read_frames, read_stamps
from .transform import Transformed
from .write import ClipWriter, WriteOptions

SILENT_RATE = 44100
OnFrame = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ClipPart:
    """Frames and the sound of the same time.

    Attributes:
        frames: (B, H, W, 3), 0..1, as seen.
        audio: sample 0 is the time of the first frame; silence where the clip has no sound.
        rate: frames per second on average.
        report: what the clip is, one fact per line.
    """

    frames: Tensor
    audio: Waveform
    rate: float
    report: str


def read_part(path: Path, first: int = 0, count: int | None = None, on_frame: OnFrame | None = None) -> ClipPart:
    """Read frames ``first`` to ``first + count`` of a clip, or all from there on, with their sound.

    Raises:
        BadClip: not a clip, damaged, or no such frame.
    """
    facts = read_facts(path)
    frames: list[Tensor] = []
    stamps: list[int] = []
    last = 0
    for part in read_frames(path, CHUNK, facts=facts, first=first, count=count):
        frames.append(part.frames)
        stamps += part.stamps
        last = part.durations[-1]
        if on_frame is not None:
            on_frame(len(stamps), max(len(stamps), count or facts.frames - first))
    if not stamps:
        raise BadClip(
            path.name,
            expected=f"a frame {first} (counted from 0)",
            found=f"a clip of about {facts.frames} frames",
            cure="lower the number of the first frame",
        )
    seconds = (stamps[-1] - stamps[0] + (last or facts.step)) * facts.time_base
    rate = float(facts.rate) if facts.rate else len(stamps) / float(seconds)
    audio, told = _sound(path, stamps[0] * facts.time_base, seconds)
    return ClipPart(torch.cat(frames), audio, rate, "\n".join([describe_clip(facts, len(stamps), seconds), told]))


def _sound(path: Path, origin: Fraction, seconds: Fraction) -> tuple[Waveform, str]:
    try:
        found = read_audio(path, origin=origin, seconds=seconds)
    except BadAudio as cause:
        samples = max(1, round(seconds * SILENT_RATE))
        return Waveform(torch.zeros(1, 1, samples), SILENT_RATE), f"sound: silence ({cause.found})"
    return found, f"sound: {found.samples.shape[1]} channels, {found.sample_rate} samples per second"


def describe_clip(facts: ClipFacts, frames: int, seconds: Fraction) -> str:
    """What a clip is, one fact per line."""
    turn = "as stored"
    if not facts.orientation.plain:
        turn = "turned or mirrored by its display matrix"
    elif not facts.orientation.exact:
        turn = "a turn that is not by quarters, left alone"
    return "\n".join(
        [
            f"clip: {facts.path.name} ({facts.container}, {facts.codec}, {facts.pixel_format})",
            f"frames: {frames} of {facts.width} x {facts.height} in {float(seconds):.3f} s",
            f"rate: {float(facts.rate):.3f} frames per second on average" if facts.rate else "rate: not known",
            f"orientation: {turn}",
            f"beside: {', '.join(f'{one.kind} {one.codec}' for one in facts.others) or 'nothing'}",
        ]
    )


def save_new(
    target: Path,
    frames: Tensor,
    rate: float,
    audio: Waveform | None = None,
    options: WriteOptions | None = None,
    on_frame: OnFrame | None = None,
) -> Transformed:
    """Write frames (B, H, W, 3), 0..1, at a constant rate, with or without sound."""
    sound = None if audio is None else (audio.samples, audio.sample_rate)
    with ClipWriter(target, layout_of(frames.shape[1], frames.shape[2], rate), options, audio=sound) as writer:
        _write_all(writer, frames, range(len(frames)), on_frame)
    return Transformed(target, writer.frames, writer.notes)


def save_like(
    target: Path,
    frames: Tensor,
    facts: ClipFacts,
    first: int = 0,
    audio: Waveform | None = None,
    options: WriteOptions | None = None,
    on_frame: OnFrame | None = None,
) -> Transformed:
    """Write frames (B, H, W, 3) with the stamps, orientation, colour and sound of the clip they came from.

    All frames of the clip keep its sound and subtitles packet by packet. A part starts at time 0 and gets the sound of
    its time as AAC. Frames of another size than the clip's keep their own.

    Args:
        target: the new file.
        frames: as seen.
        facts: of the clip.
        first: number of its frame that the first of ``frames`` is.
        audio: instead of the clip's own sound.
        options: see `WriteOptions`.
        on_frame: called after every frame; may raise to cancel.

    Raises:
        ClipNotWritten: more frames than the clip has from there on.
    """
    stamps = read_stamps(facts.path, facts)
    if first + len(frames) > len(stamps):
        raise ClipNotWritten(
            target.name,
            expected=f"at most {max(0, len(stamps) - first)} pictures, as {facts.path.name} has from frame {first} on",
            found=f"{len(frames)}",
            cure="give the pictures of that clip, one for each frame, or set like to none",
        )
    chosen = stamps[first : first + len(frames)]
    layout = layout_like(facts)
    if tuple(frames.shape[1:3]) != (facts.height, facts.width):
        layout = replace(layout, height=int(frames.shape[1]), width=int(frames.shape[2]), pixel_aspect=None)
    whole = len(frames) == len(stamps)
    if not whole:
        seconds = (chosen[-1] - chosen[0] + facts.step) * facts.time_base
        audio = audio or _own_sound(facts, chosen[0] * facts.time_base, seconds)
        chosen = tuple(stamp - chosen[0] for stamp in chosen)
    sound = None if audio is None else (audio.samples, audio.sample_rate)
    with ClipWriter(target, layout, options, copy=facts if whole else None, audio=sound) as writer:
        _write_all(writer, frames, chosen, on_frame)
    return Transformed(target, writer.frames, writer.notes)


def _own_sound(facts: ClipFacts, origin: Fraction, seconds: Fraction) -> Waveform | None:
    if not any(stream.kind == "audio" for stream in facts.others):
        return None
    return read_audio(facts.path, origin=origin, seconds=seconds)


def _write_all(writer: ClipWriter, frames: Tensor, stamps: Sequence[int], on_frame: OnFrame | None) -> None:
    for place, stamp in enumerate(stamps):
        writer.write(frames[place : place + 1], [stamp])
        if on_frame is not None:
            on_frame(place + 1, len(frames))
