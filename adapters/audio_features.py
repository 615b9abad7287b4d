"""What a talking-face system hears: the value of the socket LIKENESS_AUDIO."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from .errors import EncoderMismatch

SAMPLE_RATE = 16_000
WhisperSystem = Literal["hunyuan_avatar", "musetalk_v1", "musetalk_v15"]
SYSTEMS: tuple[str, ...] = get_args(WhisperSystem)
System = WhisperSystem | Literal["imagineid_content", "imagineid_emotion"]
TITLES: dict[str, str] = {
    "hunyuan_avatar": "HunyuanVideo-Avatar",
    "musetalk_v1": "MuseTalk v1 and UnAvgLip",
    "musetalk_v15": "MuseTalk v1.5",
    "imagineid_content": "ImagineID's content",
    "imagineid_emotion": "ImagineID's emotion",
}


@dataclass(frozen=True, eq=False)
class AudioFeatures:
    """Audio features of K tracks (one for each character) on one clock, one window for each video frame.

    Attributes:
        system: whose windows these are; no system takes another's.
        features: (K, F, W, S, C) float32 on the CPU: K tracks, F video frames, W = 10 feature frames of 20 ms in a
            window, S = 5 states of the encoder, C channels; W and S are 1 for a factor of ImagineID. No padding of a
            model's own is in it.
        fps: video frames a second.
        samples: length of every track at 16 kHz, the silence in front of it included.
        offsets: seconds of silence that were put before each track; K entries.
        sources: sha256 of each track as it came in; K entries.
        encoder: id of the audio encoder and the digest of its file.
        notes: sentences for the report.
    """

    system: System
    features: Tensor
    fps: float
    samples: int
    offsets: tuple[float, ...]
    sources: tuple[str, ...]
    encoder: str = ""
    notes: tuple[str, ...] = ()

    @property
    def tracks(self) -> int:
        """K, the number of tracks."""
        return int(self.features.shape[0])

    @property
    def frames(self) -> int:
        """F, the number of video frames that have a window."""
        return int(self.features.shape[1])

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / SAMPLE_RATE

    @property
    def width(self) -> int:
        """C, the channels of a feature."""
        return int(self.features.shape[4])

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that a model is given: equal digests mean equal sound."""
        sha = hashlib.sha256(f"{self.system}:{self.fps}:{tuple(self.features.shape)}".encode())
        sha.update(self.features.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return sha.hexdigest()

    def track(self, number: int) -> AudioFeatures:
        """The features of one track alone, counted from 0. Raises IndexError as a sequence does."""
        chosen = range(self.tracks)[number]
        part = slice(chosen, chosen + 1)
        return replace(self, features=self.features[part], offsets=self.offsets[part], sources=self.sources[part])

    def rows(self, number: int = 0) -> Tensor:
        """(F, W * S, C) of one track, rows by time and then by state, as MuseTalk takes them."""
        return self.features[number].flatten(1, 2)


def require_system(audio: AudioFeatures, *systems: System, what: str) -> None:
    """Refuse features of another system.

    Args:
        audio: the features.
        systems: those that ``what`` takes.
        what: who asks, as the user knows it.

    Raises:
        EncoderMismatch: naming both.
    """
    if audio.system not in systems:
        raise EncoderMismatch(
            what,
            expected=f"audio features for {' or '.join(TITLES[one] for one in systems)}",
            found=f"features for {TITLES.get(audio.system, audio.system)}",
            cure=f"set system to {' or '.join(systems)} in Audio Features",
        )
