"""Log-mel spectrograms as Whisper reads them: 80 bands, 100 frames a second.

Two ways of the same transform are in use. The feature extractor of Hugging Face's transformers pads the sound to 30
seconds with silence before it, so that the loudest point of those 30 seconds sets the floor; openai's own program
transforms the whole sound at once and pads the result with zeros.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from ...audio_features import SAMPLE_RATE

BANDS, WINDOW, HOP = 80, 400, 160
CHUNK_SAMPLES, CHUNK_FRAMES = 480_000, 3000
# Slaney's mel scale (Auditory Toolbox): linear to 1000 Hz, 27 steps for each factor of 6.4 above.
_LINEAR_HZ, _BREAK_HZ, _STEP = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0
_FLOOR, _RANGE = 1e-10, 8.0


def segment_mels(samples: Tensor) -> Tensor:
    """Mono sound (N,) at 16 kHz to (segments, 80, 3000), each segment of 30 s by itself, the last padded with silence.

    This is what ``WhisperFeatureExtractor`` gives for successive pieces of 480,000 samples.
    """
    count = max(1, -(-samples.shape[0] // CHUNK_SAMPLES))
    padded = functional.pad(samples, (0, count * CHUNK_SAMPLES - samples.shape[0]))
    return torch.stack([log_mel(part) for part in padded.split(CHUNK_SAMPLES)])


def whole_mel(samples: Tensor) -> Tensor:
    """Mono sound (N,) at 16 kHz to (80, N // 160), transformed as one, as openai's program does."""
    return log_mel(samples)


def log_mel(samples: Tensor) -> Tensor:
    """Sound (N,) to its log-mel spectrogram (80, N // 160), float32; N must exceed 200 (the transform mirrors ends).

    The transform is computed in float64, as in the numpy version of the extractor.
    """
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    spectrum = torch.stft(samples.to("cpu", torch.float64), WINDOW, HOP, window=window, return_complex=True)
    power = mel_filters() @ spectrum[:, :-1].abs().square()
    level = power.clamp(min=_FLOOR).log10()
    return ((torch.maximum(level, level.max() - _RANGE) + 4) / 4).float()


@cache
def mel_filters() -> Tensor:
    """(80, 201) float64 triangles over 0 to 8000 Hz, each with an area of 1 (Slaney's normalisation)."""
    edges = _hertz(torch.linspace(0, _mels(SAMPLE_RATE / 2), BANDS + 2, dtype=torch.float64))
    bins = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    slopes = edges[:, None] - bins
    steps = edges.diff()[:, None]
    rising, falling = -slopes[:-2] / steps[:-1], slopes[2:] / steps[1:]
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _mels(hertz: float) -> float:
    linear = hertz / _LINEAR_HZ
    return linear if hertz < _BREAK_HZ else _BREAK_HZ / _LINEAR_HZ + math.log(hertz / _BREAK_HZ) / _STEP


def _hertz(mels: Tensor) -> Tensor:
    above = _BREAK_HZ * ((mels - _BREAK_HZ / _LINEAR_HZ) * _STEP).exp()
    return torch.where(mels < _BREAK_HZ / _LINEAR_HZ, mels * _LINEAR_HZ, above)
