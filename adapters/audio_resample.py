"""Change of a sound's sample rate by band-limited interpolation.

The systems read sound through librosa, whose default is the soxr library at its setting HQ, and MuseTalk v1 through
ffmpeg. Neither is needed here: this is the textbook method (Smith, "Digital Audio Resampling Home Page"; a sinc under a
Kaiser window) with the band edges and the rejection that soxr states for HQ: the pass band ends at 0.913 of the lower
rate's half, the stop band begins at that half, about 125 dB below. The results agree closely, not bit by bit. Where the
rates are equal nothing is changed.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

PASS_END, STOP_BEGIN, REJECTION = 0.913, 1.0, 125.0
# Kaiser's formulas for the window's shape and its length in zero crossings of the sinc.
_BETA = 0.1102 * (REJECTION - 8.7)
_CUT = (PASS_END + STOP_BEGIN) / 2
_HALF_WIDTH = math.ceil((REJECTION - 7.95) / (2.285 * math.pi * (STOP_BEGIN - PASS_END)) / 2)


def resampled(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """Sound (K, N) at ``rate`` to (K, ceil(N * wanted / rate)) at ``wanted``; beyond its ends there is silence.

    Output sample n lies at the time n / wanted exactly: there is no delay.
    """
    common = math.gcd(rate, wanted)
    old, new = rate // common, wanted // common
    if old == new:
        return samples
    count = -(-samples.shape[1] * new // old)
    # Half the kernel in input samples: the sinc is as wide as the lower of the two rates asks.
    half = math.ceil(_HALF_WIDTH * max(1.0, old / new))
    frames = -(-count // new)
    padded = functional.pad(samples, (half, half + frames * old - samples.shape[1] + old))[:, None]
    found = samples.new_empty(samples.shape[0], frames, new)
    for phase, kernel in enumerate(_kernels(old, new, half).to(samples)):
        first = phase * old // new
        part = padded[..., first : first + (frames - 1) * old + len(kernel)]
        found[:, :, phase] = functional.conv1d(part, kernel[None, None], stride=old)[:, 0]
    return found.flatten(1)[:, :count]


@lru_cache(maxsize=4)
def _kernels(old: int, new: int, half: int) -> Tensor:
    """(new, 2 * half + 1) float32 weights of every phase; kept, as clips of one rate usually come together."""
    return torch.stack([_kernel(phase * old % new / new, half, min(1.0, new / old)).float() for phase in range(new)])


def _kernel(offset: float, half: int, scale: float) -> Tensor:
    """Weights of the 2 * half + 1 input samples around a time that lies ``offset`` (0..1) after the middle one."""
    places = (torch.arange(-half, half + 1, dtype=torch.float64) - offset) * scale
    inside = (1 - (places / _HALF_WIDTH).square()).clamp(min=0)
    window = torch.special.i0(_BETA * inside.sqrt()) / torch.special.i0(torch.tensor(_BETA, dtype=torch.float64))
    window = window * (places.abs() <= _HALF_WIDTH)
    return scale * _CUT * torch.sinc(_CUT * places) * window
