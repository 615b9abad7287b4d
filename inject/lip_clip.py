"""Lip-sync from file to file: faces are found first, then frames are painted and written chunk by chunk with the sound.

Each frame hears what is said at its own time: its time stamp chooses the window. The official program cuts the rate to
a whole number (29.97 fps drifts away by a second in half a minute) and stops above 50 fps.

Whoever reads and writes files is passed in, such as `media.revoice.RevoicedClip`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ..adapters.audio_sound import as_sound
from ..adapters.clip_faces import ClipFrames, FollowOptions, find_faces, part_of
from ..adapters.families.musetalk.voice import Voice, voice_of_sound
from ..adapters.swappers.clip import Written
from ..faces.detect import Detector
from ..faces.tracking import TrackedFaces, select_people
from ..faces.types import FaceBatch
from .audio import whisper_in
from .host import stop_if_cancelled
from .lip_sync import Count, Length, LipSync, OnMissing, Progress, check_faces

if TYPE_CHECKING:
    from .loaded_networks import LoadedEncoder

TimedChange = Callable[[Tensor, Sequence[int], Sequence[Fraction]], Tensor]


class Clip(ClipFrames, Protocol):
    """A clip that can be read as often as needed and written once."""

    def write(self, change: TimedChange, frames: int, total: int) -> Written:
        """Write ``total`` frames of a clip of ``frames``, each as ``change`` makes it."""
        ...


@dataclass(frozen=True)
class ClipSyncOptions:
    """What a user sets beside `LipSyncOptions`.

    Attributes:
        person: whose mouth, as 'Track Faces' numbers persons: in order of their first frame.
        follow: how faces are found and followed.
        on_missing_face: ``"keep"`` passes frames without a face unchanged, ``"error"`` stops before anything is
            written.
        length: ``"clip"`` writes as many frames as the clip has; ``"sound"`` goes forwards and backwards through the
            clip until the sound ends, as the official program does.
    """

    person: int = 0
    follow: FollowOptions = FollowOptions()
    on_missing_face: OnMissing = "keep"
    length: Length = "clip"


def voice_for(job: LipSync, encoder: LoadedEncoder, audio: Any, rate: Fraction) -> Voice:
    """The voice of the host's AUDIO on the clock of a clip, as the job's version hears it.

    Raises:
        EncoderMismatch: an encoder that hears nothing.
        BadSound: no sound, or none of a frame's length.
    """
    network = whisper_in(encoder)
    if encoder.managed is not None:
        encoder.managed.load()
    return voice_of_sound(network, as_sound(audio), job.facts.version, rate, stop_if_cancelled)


def sync_clip(
    job: LipSync, clip: Clip, detector: Detector, voice: Voice, options: ClipSyncOptions, tell: Progress
) -> tuple[Written, Count]:
    """Write a clip with the mouth of a voice.

    Args:
        job: see `LipSync`.
        clip: what is read and written.
        detector: finds faces.
        voice: at the clip's rate; begins with its first frame.
        options: see `ClipSyncOptions`.
        tell: called after every frame that was searched or painted with (done, in all); may raise to cancel.

    Raises:
        NoFaceFound: no face, or frames without one under "error".
        FaceChoice: no such person, or a region that needs a parser.
    """
    job.region(job.parser is not None)
    faces = _faces_of(clip, detector, options, lambda done, total: tell(done, 2 * max(done, total)))
    check_faces(job, faces, options.on_missing_face)
    total = len(faces) if options.length == "clip" else voice.frames
    filled = faces.filled if isinstance(faces, TrackedFaces) else ()
    count, done = Count(filled=sum(any(one) for one in filled)), len(faces)

    def told() -> None:
        nonlocal done
        done += 1
        tell(done, len(faces) + total)

    def change(frames: Tensor, numbers: Sequence[int], moments: Sequence[Fraction]) -> Tensor:
        return job.frames(frames, _in_order(faces, numbers), voice, moments, count, numbers[0], told)

    return clip.write(change, len(faces), total), count


def _faces_of(clip: Clip, detector: Detector, options: ClipSyncOptions, tell: Progress) -> FaceBatch:
    found = find_faces(clip, detector, None, options.follow, tell)
    if isinstance(found, TrackedFaces) and found.people:
        return select_people(found, [options.person])
    return found


def _in_order(faces: FaceBatch, numbers: Sequence[int]) -> FaceBatch:
    part = part_of(faces, min(numbers), max(numbers) + 1)
    images = part.images if numbers[0] <= numbers[-1] else part.images[::-1]
    return FaceBatch(tuple(images), faces.image_size, faces.detector)
