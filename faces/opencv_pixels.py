"""OpenCV's numbers on 8-bit pictures: Lanczos over eight taps, bilinear resizing, Gaussian blur.

Like OpenCV, all of them compute with whole numbers: weights rounded to 11 bits for resizing (``resize.cpp``) and to 8
for blurring, their rounding errors passed on so that they add up to one (``smooth.dispatch.cpp``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .filters import mirrored

_RESIZE_BITS = 11
_BLUR_BITS = 8
_HALF = math.sqrt(0.5)
# Sines of (k + x) pi / 4 as sums over those of x.
_TURNS = ((1, 0), (-_HALF, -_HALF), (0, 1), (_HALF, -_HALF), (-1, 0), (_HALF, _HALF), (0, -1), (-_HALF, _HALF))
# Taken instead of a sampled Gaussian; the others are in `filters`.
_NINE = (4, 13, 30, 51, 60, 51, 30, 13, 4)

Weights = Callable[[float], list[float]]


def resize_lanczos4(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return 8-bit pictures (..., H, W) resized to (..., height, width) as ``INTER_LANCZOS4`` does, uint8."""
    rows = _sum(_taps(pixels.long(), width, _lanczos, -3))
    return _rounded(_sum(_taps(rows.transpose(-1, -2), height, _lanczos, -3)).transpose(-1, -2), 2 * _RESIZE_BITS)


def resize_linear(pixels: Tensor, height: int, width: int) -> Tensor:
    """Return 8-bit pictures (..., H, W) resized to (..., height, width) as ``INTER_LINEAR`` does, uint8."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    rows = _sum(_taps(pixels.long(), width, _linear, 0)).transpose(-1, -2) >> 4
    # The lower bits of both rows are dropped before they are added.
    total = _sum([part >> 16 for part in _taps(rows, height, _linear, 0)]).transpose(-1, -2)
    return ((total + 2) >> 2).clamp(0, 255).to(torch.uint8)


def blur(pixels: Tensor, size: int) -> Tensor:
    """Return 8-bit planes (..., H, W) blurred by a Gaussian of ``size`` (odd) pixels, its sigma derived from it, uint8.

    Borders are mirrored without the edge.
    """
    kernel = blur_kernel(size)
    total = pixels.long()
    for axis in (-1, -2):
        index = mirrored(pixels.shape[axis], size // 2)
        padded = total.index_select(axis, index.to(total.device))
        length = pixels.shape[axis]
        total = _sum([weight * padded.narrow(axis, place, length) for place, weight in enumerate(kernel)])
    return _rounded(total, 2 * _BLUR_BITS)


def blur_kernel(size: int) -> list[int]:
    """The whole-numbered weights of a Gaussian of ``size`` (odd) taps; they add up to 256."""
    if size == len(_NINE):
        return list(_NINE)
    exact = _gaussian(size)
    half, error, side = size // 2, 0.0, []
    for value in exact[:half]:
        wanted = value * (1 << _BLUR_BITS) + error
        side.append(round(wanted))
        error = wanted - side[-1]
    return [*side, (1 << _BLUR_BITS) - 2 * sum(side), *reversed(side)]


def _gaussian(size: int) -> list[float]:
    small = {1: (1.0,), 3: (0.25, 0.5, 0.25), 5: (1 / 16, 0.25, 3 / 8, 0.25, 1 / 16)}
    small[7] = (1 / 32, 7 / 64, 7 / 32, 9 / 32, 7 / 32, 7 / 64, 1 / 32)
    if size in small:
        return list(small[size])
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    values = [math.exp(-((place - (size - 1) / 2) ** 2) / (2 * sigma * sigma)) for place in range(size)]
    return [value / sum(values) for value in values]


def _taps(values: Tensor, size: int, weights: Weights, first: int) -> list[Tensor]:
    """What each tap adds where whole numbers (..., L) are resampled to (..., size), 11 bits finer."""
    length = values.shape[-1]
    places, table = _table(length, size, weights)
    start, found = torch.tensor(places) + first, torch.tensor(table)
    indices = [(start + tap).clamp(0, length - 1).to(values.device) for tap in range(found.shape[1])]
    return [values.index_select(-1, index) * found[:, tap].to(values.device) for tap, index in enumerate(indices)]


@lru_cache(maxsize=64)
def _table(length: int, size: int, weights: Weights) -> tuple[list[int], list[list[int]]]:
    """For each place of the result the tap before it, and whole-numbered weights."""
    scale = length / size
    places, table = [], []
    for position in range(size):
        # OpenCV keeps the position in single precision.
        centre = float(np.float32((position + 0.5) * scale - 0.5))
        whole = math.floor(centre)
        places.append(whole)
        table.append([round(value * (1 << _RESIZE_BITS)) for value in weights(float(np.float32(centre - whole)))])
    return places, table


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _linear(x: float) -> list[float]:
    return [float(np.float32(1) - np.float32(x)), x]


def _lanczos(x: float) -> list[float]:
    """The eight weights around a position ``x`` (0..1) behind the fourth tap, in single precision."""
    if x < float(np.finfo(np.float32).eps):
        return [0.0] * 3 + [1.0] + [0.0] * 4
    angle = -(x + 3) * math.pi / 4
    sine, cosine = math.sin(angle), math.cos(angle)
    values = [
        np.float32((turn[0] * sine + turn[1] * cosine) / (-(x + 3 - tap) * math.pi / 4) ** 2)
        for tap, turn in enumerate(_TURNS)
    ]
    total = np.float32(0)
    for value in values:
        total = np.float32(total + value)
    return [float(np.float32(value * (np.float32(1) / total))) for value in values]


def _rounded(total: Tensor, bits: int) -> Tensor:
    return ((total + (1 << (bits - 1))) >> bits).clamp(0, 255).to(torch.uint8)
