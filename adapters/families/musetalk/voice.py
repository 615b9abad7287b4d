"""A voice on the clock of a clip: MuseTalk's audio tokens of any moment, without holding those of all frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

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
    """What is said at each moment of a clip.

    Attributes:
        seconds: length of the sound.
        fps: frames a second of the clip.
        tokens: moments (N) in seconds to audio tokens (N, 50, 384), positions not added.
    """

    seconds: Fraction
    fps: Fraction
    tokens: Callable[[Sequence[Fraction]], Tensor]

    @property
    def frames(self) -> int:
        """Whole frames of the sound."""
        return math.floor(self.seconds * self.fps)

    def heard(self, moment: Fraction) -> bool:
        """Whether the sound still goes on."""
        return moment < self.seconds


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
    rows, fps = features.features[track], Fraction(features.fps)
    return Voice(
        features.frames / fps, fps, lambda moments: rows[[round(moment * fps) for moment in moments]].flatten(1, 2)
    )


def voice_of_sound(
    encoder: WhisperEncoder, sound: Sound, version: str, fps: Fraction, told: Callable[[], None] = lambda: None
) -> Voice:
    """The voice of the first track of a sound. Each moment gets its own window, whatever the rate of the frames is.

    Args:
        encoder: whisper-tiny.
        sound: see `Sound`.
        version: ``"v1"`` or ``"v15"``.
        fps: frames a second of the clip; v1.5's windows begin earlier at lower rates.
        told: called after each piece of 30 seconds; may raise to cancel.

    Raises:
        BadSound: sound shorter than a frame, or a rate that no clip has.
    """
    samples = at_rate(sound, SAMPLE_RATE).samples[0]
    seconds = Fraction(len(samples), SAMPLE_RATE)
    if not 1 <= fps <= MOST_FPS or seconds * fps < 1:
        raise BadSound(
            "sound for lip-sync",
            expected=f"at least one frame of sound, and 1 to {MOST_FPS:g} fps",
            found=f"{float(seconds):.3g} s at {float(fps):g} fps",
            cure="choose a longer sound, or convert the clip to 25 fps",
        )
    make, windows = (musetalk_v1_states, _v1) if version == V1 else (musetalk_v15_states, _v15)
    states = make(encoder, samples, told)[: windows_musetalk_v15.heard_steps(len(samples))]
    return Voice(seconds, fps, lambda moments: windows(states, moments, fps))


def _v1(states: Tensor, moments: Sequence[Fraction], fps: Fraction) -> Tensor:
    steps = [math.floor(moment * windows_musetalk_v1.STEPS_A_SECOND) for moment in moments]
    return states[windows_musetalk_v1.around(steps, len(states))].flatten(1, 2)


def _v15(states: Tensor, moments: Sequence[Fraction], fps: Fraction) -> Tensor:
    steps = [math.floor(moment * windows_musetalk_v15.STEPS_A_SECOND) for moment in moments]
    return windows_musetalk_v15.heard_at(states, windows_musetalk_v15.around(steps, float(fps))).flatten(1, 2)
