"""A voice on the clock of a clip: MuseTalk's audio tokens of any frame, without holding those of all frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...audio_features import SAMPLE_RATE, AudioFeatures, System, require_system
from ...audio_sound import BadSound, Sound, at_rate
from ...encoders.whisper import windows_musetalk_v1, windows_musetalk_v15
from ...encoders.whisper.encoder import WhisperEncoder
from ...encoders.whisper.features import MOST_FPS, musetalk_v1_states, musetalk_v15_states
from .adapter import V1, V15

SYSTEMS: dict[str, System] = {V1: "musetalk_v1", V15: "musetalk_v15"}


@dataclass(frozen=True, eq=False)
class Voice:
    """What is said in each frame of a clip.

    Attributes:
        frames: number of frames in which there is sound.
        fps: frames a second.
        tokens: frame numbers (N) to audio tokens (N, 50, 384), positions not added.
    """

    frames: int
    fps: float
    tokens: Callable[[Sequence[int]], Tensor]


def voice_of_features(features: AudioFeatures, version: str, track: int) -> Voice:
    """The voice of one track of features for a whole clip.

    Args:
        features: for that version.
        version: ``"v1"`` or ``"v15"``; their features differ.
        track: counted from 0.

    Raises:
        EncoderMismatch: features of another system.
        BadSound: no such track.
    """
    require_system(features, SYSTEMS[version], what=f"MuseTalk {'v1' if version == V1 else 'v1.5'}")
    if not 0 <= track < features.tracks:
        raise BadSound(
            "audio features",
            expected=f"one of {features.tracks} tracks",
            found=f"track {track + 1}",
            cure=f"set track to 1{f'..{features.tracks}' if features.tracks > 1 else ''}",
        )
    rows = features.features[track]
    return Voice(features.frames, features.fps, lambda numbers: rows[list(numbers)].flatten(1, 2))


def voice_of_sound(
    encoder: WhisperEncoder, sound: Sound, version: str, fps: float, told: Callable[[], None] = lambda: None
) -> Voice:
    """The voice of the first track of a sound, windowed frame by frame at the true rate.

    Args:
        encoder: whisper-tiny.
        sound: see `Sound`.
        version: ``"v1"`` or ``"v15"``.
        fps: frames a second of the clip, whole or not.
        told: called after each piece of 30 seconds; may raise to cancel.

    Raises:
        BadSound: sound shorter than a frame, or a rate that no clip has.
    """
    samples = at_rate(sound, SAMPLE_RATE).samples[0]
    frames = windows_musetalk_v15.frame_count(len(samples), fps) if 1 <= fps <= MOST_FPS else 0
    if frames < 1:
        raise BadSound(
            "sound for lip-sync",
            expected=f"at least one frame of sound, and 1 to {MOST_FPS:g} fps",
            found=f"{len(samples) / SAMPLE_RATE:.3g} s at {fps:g} fps",
            cure="choose a longer sound, or convert the clip to 25 fps",
        )
    if version == V1:
        states = musetalk_v1_states(encoder, samples, told)
        return Voice(frames, fps, lambda numbers: _v1(states, numbers, fps))
    heard = musetalk_v15_states(encoder, samples, told)[: windows_musetalk_v15.heard_steps(len(samples))]
    return Voice(frames, fps, lambda numbers: _v15(heard, numbers, fps))


def _v1(states: Tensor, numbers: Sequence[int], fps: float) -> Tensor:
    steps = windows_musetalk_v1.indices(len(states), max(numbers, default=-1) + 1, fps)
    return states[steps[list(numbers)]].flatten(1, 2)


def _v15(states: Tensor, numbers: Sequence[int], fps: float) -> Tensor:
    return windows_musetalk_v15.heard_at(states, windows_musetalk_v15.indices(numbers, fps)).flatten(1, 2)
