"""Resizing of 8-bit pictures with Pillow's numbers: bicubic (a = -0.5) and Lanczos (3 lobes), with antialiasing.

Checkpoints depend on it: their authors prepared every picture with ``Image.resize``. Pillow works in two passes,
horizontal and then vertical, each with weights rounded to 22 bits and a result rounded to 8 (``Resample.c``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Filter = Literal["bicubic", "lanczos"]
_BITS = 22


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    if not -3 <= x < 3:
        return 0.0
    return 3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2


_FILTERS: dict[str, tuple[Callable[[float], float], float]] = {"bicubic": (_bicubic, 2.0), "lanczos": (_lanczos, 3.0)}


def resize_pixels(pixels: Tensor, height: int, width: int, kernel: Filter = "bicubic") -> Tensor:
    """Return 8-bit pictures (..., H, W) resized to (..., height, width), uint8, as Pillow does."""
    if pixels.shape[-1] != width:
        pixels = resize_axis(pixels, width, kernel)
    if pixels.shape[-2] != height:
        pixels = resize_axis(pixels.transpose(-1, -2), height, kernel).transpose(-1, -2)
    return pixels


def resize_axis(pixels: Tensor, size: int, kernel: Filter) -> Tensor:
    """Return 8-bit values (..., L) resampled along their last axis to (..., size), uint8."""
    first, weights = _weights(pixels.shape[-1], size, kernel)
    flat = pixels.reshape(-1, pixels.shape[-1])
    # Sums stay below 2 ** 53, so that float64 holds every one of these whole numbers.
    total = torch.full((flat.shape[0], size), float(1 << (_BITS - 1)), dtype=torch.float64, device=flat.device)
    for tap in range(weights.shape[1]):
        index = (first + tap).clamp(max=pixels.shape[-1] - 1).to(flat.device)
        total.addcmul_(flat.index_select(1, index).double(), weights[:, tap].to(flat.device))
    rounded = torch.floor(total / (1 << _BITS)).clamp(0, 255).to(torch.uint8)
    return rounded.reshape(*pixels.shape[:-1], size)


def _weights(length: int, size: int, kernel: Filter) -> tuple[Tensor, Tensor]:
    """First source index (size,) and whole-numbered weights (size, taps) float64 of each output position."""
    function, reach = _FILTERS[kernel]
    scale = length / size
    stretch = max(scale, 1.0)
    support = reach * stretch
    firsts, rows = [], []
    for position in range(size):
        centre = (position + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), length)
        row = [function((x - centre + 0.5) / stretch) for x in range(low, high)]
        total = sum(row)
        firsts.append(low)
        rows.append([_rounded(value / total * (1 << _BITS)) for value in row])
    taps = max(len(row) for row in rows)
    padded = [row + [0] * (taps - len(row)) for row in rows]
    return torch.tensor(firsts), torch.tensor(padded, dtype=torch.float64)


def _rounded(value: float) -> int:
    return int(value - 0.5) if value < 0 else int(value + 0.5)


def to_pixels(images: Tensor) -> Tensor:
    """Return 8-bit pictures of pictures with values 0..1, rounded."""
    return (images.detach().to(torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)
