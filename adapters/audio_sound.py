"""Sound in memory: checks of the host's AUDIO, one channel from many, silence in front, several tracks on one clock."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..faces.errors import LikenessError
from .audio_resample import resampled

_WHAT = "audio"


class BadSound(LikenessError):
    """Sound that cannot be worked on: empty, not finite, too short, or no AUDIO at all."""


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound of K tracks with one channel each.

    Attributes:
        samples: (K, N) float32 on the CPU.
        rate: samples a second.
    """

    samples: Tensor
    rate: int

    @property
    def tracks(self) -> int:
        """K, the number of tracks."""
        return int(self.samples.shape[0])

    @property
    def seconds(self) -> float:
        """Length of every track."""
        return self.samples.shape[1] / self.rate

    def hashes(self) -> tuple[str, ...]:
        """sha256 of each track's rate and samples, for provenance."""
        return tuple(_hash(track, self.rate) for track in self.samples)


def as_sound(audio: object) -> Sound:
    """The host's AUDIO with its channels averaged to one; every entry of its batch is a track.

    Args:
        audio: ``{"waveform": (K, channels, N), "sample_rate": int}``.

    Raises:
        BadSound: another value, nothing in it, or numbers that are not finite.
    """
    if not isinstance(audio, Mapping) or "waveform" not in audio or "sample_rate" not in audio:
        raise _bad("the host's AUDIO (waveform and sample_rate)", _kind(audio), "connect a node with an AUDIO output")
    samples, rate = audio["waveform"], audio["sample_rate"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or rate < 1:
        raise _bad("a sample rate of 1 or more", repr(rate), "load the sound again")
    if not isinstance(samples, Tensor) or samples.ndim != 3 or samples.is_complex():
        found = f"shape {tuple(samples.shape)}" if isinstance(samples, Tensor) else _kind(samples)
        raise _bad("a waveform (batch, channels, samples)", found, "connect a node with an AUDIO output")
    if not samples.numel():
        raise _bad(
            "sound", f"a waveform of shape {tuple(samples.shape)}, which is empty", "choose a clip that has sound"
        )
    mono = samples.detach().to("cpu", torch.float32).mean(dim=1)
    if not bool(torch.isfinite(mono).all()):
        count = int((~torch.isfinite(samples)).sum())
        raise _bad("finite samples", f"{count} that are not a number or infinite", "load or make the sound again")
    return Sound(mono, round(rate))


def at_rate(sound: Sound, rate: int) -> Sound:
    """The same sound at another rate; see `audio_resample.resampled` for the method."""
    return sound if sound.rate == rate else Sound(resampled(sound.samples, sound.rate, rate), rate)


def delayed(sound: Sound, start: float) -> Sound:
    """The sound with ``start`` seconds of silence in front, to the nearest sample.

    Raises:
        BadSound: a start below 0 or not finite.
    """
    if not math.isfinite(start) or start < 0:
        raise _bad("a start of 0 seconds or more", f"{start}", "set the start to 0 or later")
    silence = sound.samples.new_zeros(sound.tracks, round(start * sound.rate))
    return Sound(torch.cat([silence, sound.samples], dim=1), sound.rate)


def joined(sounds: Sequence[Sound], starts: Sequence[float]) -> Sound:
    """Several sounds as tracks of one clip: each delayed by its start, silence after it, all of one length.

    The rate is the highest among them, so that none loses treble.

    Raises:
        BadSound: no sound, or a start below 0.
    """
    if not sounds:
        raise _bad("one or more sounds", "none", "connect a sound")
    rate = max(sound.rate for sound in sounds)
    placed = [delayed(at_rate(sound, rate), start) for sound, start in zip(sounds, starts, strict=True)]
    length = max(one.samples.shape[1] for one in placed)
    padded = [torch.nn.functional.pad(one.samples, (0, length - one.samples.shape[1])) for one in placed]
    return Sound(torch.cat(padded), rate)


def mixed(sound: Sound) -> Sound:
    """The sum of all tracks as one; made quieter as a whole where it would exceed 1."""
    total = sound.samples.sum(dim=0, keepdim=True)
    return Sound(total / total.abs().max().clamp(min=1.0), sound.rate)


def as_audio(sound: Sound) -> dict[str, Any]:
    """The host's AUDIO with one channel; each track is an entry of its batch."""
    return {"waveform": sound.samples[:, None], "sample_rate": sound.rate}


def _bad(expected: str, found: str, cure: str) -> BadSound:
    return BadSound(_WHAT, expected=expected, found=found, cure=cure)


def _kind(value: object) -> str:
    return "nothing (a clip without sound gives none)" if value is None else f"a {type(value).__name__}"


def _hash(track: Tensor, rate: int) -> str:
    sha = hashlib.sha256(f"{rate}:{track.shape[0]}:".encode())
    sha.update(track.contiguous().numpy().tobytes())
    return sha.hexdigest()
