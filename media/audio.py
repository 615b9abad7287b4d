"""The sound of a clip as a waveform, and back: the host's AUDIO is ``{"waveform": (1, C, N), "sample_rate": int}``.

Files are read at their own rate and with their own channels; what needs others asks `adapters.audio_sound`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .av_package import failures, opened, pyav, reason
from .errors import BadAudio

# Gaps of this many seconds are silence; smaller ones are roundings of time stamps.
_GAP = Fraction(1, 50)


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound.

    Attributes:
        samples: (1, C, N) float32, -1..1.
        sample_rate: samples per second.
    """

    samples: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length."""
        return self.samples.shape[-1] / self.sample_rate

    def as_audio(self) -> dict[str, Any]:
        """The host's AUDIO."""
        return {"waveform": self.samples, "sample_rate": self.sample_rate}


def waveform_of(audio: Any) -> Waveform:
    """The host's AUDIO as a `Waveform`.

    Raises:
        BadAudio: not an AUDIO with one waveform (1, C, N).
    """
    samples = audio.get("waveform") if hasattr(audio, "get") else None
    rate = int(audio.get("sample_rate", 0)) if samples is not None else 0
    if samples is None or samples.ndim != 3 or len(samples) != 1 or not samples.shape[-1] or rate <= 0:
        found = "something else" if samples is None else f"a waveform {tuple(samples.shape)} at {rate}"
        raise BadAudio("audio", expected="one waveform (1, C, N) and its rate", found=found, cure="connect an AUDIO")
    return Waveform(samples.float(), rate)


def read_audio(path: Path, *, origin: Fraction = Fraction(0), seconds: Fraction | None = None) -> Waveform:
    """Read the first stream of sound, from a clip or a file of sound alone.

    Sample 0 is the time ``origin``, so that sound and frames that start there belong together: what comes before is
    cut off, what is missing is silence. Samples that an encoder put in front are dropped, as players do.

    Args:
        path: the file.
        origin: where to start, in the file's own time.
        seconds: how much; None for all.

    Raises:
        BadAudio: no stream of sound, or none that can be decoded.
        BadClip: a file that PyAV does not read.
    """
    with opened(path) as container:
        if not container.streams.audio:
            raise BadAudio(
                path.name, expected="a stream of sound", found="none", cure="choose a file with sound, or connect one"
            )
        stream = container.streams.audio[0]
        rate = int(stream.rate)
        parts, length = [], 0
        wanted = None if seconds is None else int(seconds * rate)
        try:
            for place, samples in _converted(container.decode(stream), stream.layout.name, rate, origin):
                if place > length + int(_GAP * rate):
                    parts.append(np.zeros((len(samples), place - length), np.float32))
                    length = place
                parts.append(samples)
                length += samples.shape[1]
                if wanted is not None and length >= wanted:
                    break
        except failures() as cause:
            raise BadAudio(
                path.name, expected="sound that can be decoded", found=reason(cause), cure="convert it to AAC or WAV"
            ) from cause
    if not parts:
        raise BadAudio(path.name, expected="sound", found="none from there on", cure="start earlier")
    return Waveform(torch.from_numpy(np.concatenate(parts, axis=1))[None, :, :wanted].contiguous(), rate)


def _converted(frames: Iterator[Any], layout: str, rate: int, origin: Fraction) -> Iterator[tuple[int, Any]]:
    """Yield (number of the first sample counted from ``origin``, float32 samples (C, n)); nothing before it."""
    resampler = pyav().AudioResampler(format="fltp", layout=layout, rate=rate)
    start: Fraction | None = None
    given = 0
    for frame in _ended(frames):
        if frame is not None and frame.pts is not None:
            here = frame.pts * Fraction(frame.time_base)
            # Resamplers count on; a jump in the file's own time starts a new count.
            if start is None or abs(start + Fraction(given, rate) - here) > 2 * _GAP:
                start, given = here, 0
        for made in resampler.resample(frame):
            samples = made.to_ndarray()
            place = round(((start or Fraction(0)) - origin) * rate) + given
            given += samples.shape[1]
            if place < 0:
                samples, place = samples[:, -place:], 0
            if samples.shape[1]:
                yield place, samples


def _ended(frames: Iterator[Any]) -> Iterator[Any]:
    """The frames, and None, which asks the resampler for what it still holds."""
    yield from frames
    yield None
