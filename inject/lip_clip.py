"""Lip-sync from file to file: faces are found first, then frames are painted and written chunk by chunk with the sound.

Each frame hears what is said at its own time: its time stamp chooses the window, at the clip's true rate. The official
program cuts the rate to a whole number (29.97 fps drifts away by a second in half a minute) and stops above 50 fps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..adapters.audio_sound import as_sound
from ..adapters.families.musetalk.voice import Voice, voice_of_sound
from ..adapters.swappers.clip import FollowOptions, find_faces, part_of
from ..faces.detect import Detector
from ..faces.tracking import TrackedFaces, select_people
from ..faces.types import FaceBatch
from ..media.audio import Waveform
from ..media.layout import layout_like
from ..media.rate import true_rate
from ..media.read import FrameChunk, read_frames
from ..media.transform import ClipJob
from ..media.write import ClipWriter
from .audio import whisper_in
from .host import stop_if_cancelled
from .lip_sync import Count, Length, LipSync, OnMissing, Progress, check_faces

if TYPE_CHECKING:
    from .loaded_networks import LoadedEncoder


@dataclass(frozen=True)
class ClipSyncOptions:
    """What a user sets beside `LipSyncOptions`.

    Attributes:
        person: whose mouth, as 'Track Faces' numbers persons: in order of their first frame.
        follow: how faces are found and followed.
        on_missing_face: ``"keep"`` passes frames without a face unchanged, ``"error"`` stops before anything is
        written. length: ``"clip"`` writes as many frames as the clip has; ``"sound"`` goes forwards and backwards
        through the
            clip until the sound ends, as the official program does.
    """

    person: int = 0
    follow: FollowOptions = FollowOptions()
    on_missing_face: OnMissing = "keep"
    length: Length = "clip"


@dataclass(frozen=True)
class Synced:
    """What was written.

    Attributes:
        frames: number of frames.
        count: what became of them.
        notes: sentences about what could not be kept.
    """

    frames: int
    count: Count
    notes: tuple[str, ...]


def voice_for(job: LipSync, encoder: LoadedEncoder, audio: Any, clip: ClipJob) -> Voice:
    """The voice of the host's AUDIO at a clip's true rate, as the job's version hears it.

    Raises:
        EncoderMismatch: an encoder that hears nothing.
        BadSound: no sound, or none of a frame's length.
    """
    network = whisper_in(encoder)
    if encoder.managed is not None:
        encoder.managed.load()
    rate = true_rate(clip.source, clip.facts)
    return voice_of_sound(network, as_sound(audio), job.facts.version, rate, stop_if_cancelled)


def sync_clip(
    job: LipSync,
    clip: ClipJob,
    detector: Detector,
    voice: Voice,
    sound: Waveform,
    options: ClipSyncOptions,
    tell: Progress,
) -> Synced:
    """Write a clip with the mouth of a voice, and the sound beside it.

    Args:
        job: see `LipSync`.
        clip: what is read and written; its own sound and subtitles are left out.
        detector: finds faces.
        voice: of ``sound``, at the clip's `true_rate`.
        sound: begins with the first frame.
        options: see `ClipSyncOptions`.
        tell: called after every frame that was searched or written with (done, in all); may raise to cancel.

    Raises:
        NoFaceFound: no face, or frames without one under "error".
        FaceChoice: no such person.
        BadClip, BadAudio, ClipNotWritten: see `media`.
    """
    job.region(job.parser is not None)
    faces = _faces_of(clip, detector, options, lambda done, total: tell(done, 2 * max(done, total)))
    check_faces(job, faces, options.on_missing_face)
    total = len(faces) if options.length == "clip" else voice.frames
    facts, count, rate = clip.facts, Count(), voice.fps
    layout = replace(layout_like(facts), rate=rate)
    audio = _fitted(sound, total / rate)
    done = len(faces)

    def told() -> None:
        nonlocal done
        done += 1
        tell(done, len(faces) + total)

    with ClipWriter(clip.target, layout, clip.options, audio=audio) as writer:
        for numbers, frames, stamps, durations in _played(clip, len(faces), total, rate):
            moments = [stamp * facts.time_base for stamp in stamps]
            written = job.frames(frames, _in_order(faces, numbers), voice, moments, count, numbers[0], told)
            writer.write(written, stamps, durations)
    left = [f"left out: {stream.kind} of the clip" for stream in facts.others]
    return Synced(writer.frames, count, (*left, *writer.notes))


def _faces_of(clip: ClipJob, detector: Detector, options: ClipSyncOptions, tell: Progress) -> FaceBatch:
    found = find_faces(clip, detector, None, options.follow, tell)
    if isinstance(found, TrackedFaces) and found.people:
        return select_people(found, [options.person])
    return found


def _played(
    clip: ClipJob, frames: int, total: int, rate: Fraction
) -> Iterator[tuple[list[int], Tensor, list[int], list[int]]]:
    """Frame numbers, frames, stamps from 0 and durations, in the order in which a clip of ``total`` frames shows them.

    Past the end it goes backwards, then forwards again.
    """
    unit = rate * clip.facts.time_base
    shown, backwards = 0, False
    while shown < total:
        for part in _backwards(clip, frames) if backwards else _forwards(clip):
            kept = min(len(part), total - shown)
            numbers = [part.first + place for place in range(len(part))]
            pictures, stamps, durations = part.frames[:kept], list(part.stamps), list(part.durations)
            if backwards:
                numbers, pictures = numbers[::-1], part.frames.flip(0)[:kept]
            if shown >= frames:
                stamps = [round((shown + place) / unit) for place in range(kept)]
                durations = [0] * kept
            yield numbers[:kept], pictures, stamps[:kept], durations[:kept]
            shown += kept
            if shown >= total:
                return
        backwards = not backwards


def _forwards(clip: ClipJob) -> Iterator[FrameChunk]:
    first: int | None = None
    for part in read_frames(clip.source, clip.chunk, facts=clip.facts, damaged=clip.damaged):
        if len(part):
            first = part.stamps[0] if first is None else first
            yield replace(part, stamps=tuple(stamp - first for stamp in part.stamps))


def _backwards(clip: ClipJob, frames: int) -> Iterator[FrameChunk]:
    """Chunks from the last to the first; each is read from the clip's beginning, so that numbers hold."""
    for first in reversed(range(0, frames, clip.chunk)):
        count = min(clip.chunk, frames - first)
        yield from read_frames(clip.source, count, facts=clip.facts, first=first, count=count, damaged=clip.damaged)


def _in_order(faces: FaceBatch, numbers: Sequence[int]) -> FaceBatch:
    part = part_of(faces, min(numbers), max(numbers) + 1)
    images = part.images if numbers[0] <= numbers[-1] else part.images[::-1]
    return FaceBatch(tuple(images), faces.image_size, faces.detector)


def _fitted(sound: Waveform, seconds: Fraction) -> tuple[Tensor, int]:
    """The sound, cut where the pictures end, so that no player shows the last frame on."""
    samples = sound.samples[..., : max(1, round(seconds * sound.sample_rate))]
    return torch.as_tensor(samples), sound.sample_rate
