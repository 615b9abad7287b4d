"""Blur kernels of the degradation model: six kinds of Gaussian, and the circular low pass (sinc).

Formulas: Wang et al. 2021 (Real-ESRGAN, arXiv:2107.10833), whose model RestorerID trains with; generalised Gaussian and
plateau shapes of Liu et al. 2020 (arXiv:2005.08402).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .seeds import pick, uniform

Shape = Literal["gaussian", "generalised", "plateau"]

TAPS = 21
SIZES = tuple(range(7, TAPS + 1, 2))
_SHAPES: tuple[Shape, ...] = ("gaussian", "gaussian", "generalised", "generalised", "plateau", "plateau")
# Of (shape, equal widths), in the order iso, aniso for each shape; Real-ESRGAN's list.
_WEIGHTS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_EXPONENTS: dict[Shape, tuple[float, float]] = {"gaussian": (1, 1), "generalised": (0.5, 4), "plateau": (1, 2)}


def gaussian_kernel(
    size: int,
    sigma: tuple[float, float],
    angle: float = 0.0,
    shape: Shape = "gaussian",
    exponent: float = 1.0,
) -> Tensor:
    """A kernel (size, size) float32 of sum 1.

    Args:
        size: odd number of taps.
        sigma: widths along the two axes of the ellipse, in pixels.
        angle: by which the ellipse is turned, in radians.
        shape: with the squared distance d: exp(-d/2), exp(-d**exponent / 2) or 1 / (1 + d**exponent).
        exponent: of the last two.
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    distance = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    if shape == "plateau":
        kernel = 1 / (1 + distance**exponent)
    else:
        kernel = torch.exp(-0.5 * (distance if shape == "gaussian" else distance**exponent))
    return (kernel / kernel.sum()).float()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """The circular low pass (size, size) float32 of sum 1; ``cutoff`` in radians per pixel. It rings, as it should."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    safe = radius.clamp(min=1e-9)
    kernel = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def draw_sinc(generator: torch.Generator) -> Tensor:
    """A low pass of random size and cut-off."""
    size = SIZES[pick(generator, [1.0] * len(SIZES))]
    return sinc_kernel(size, uniform(generator, math.pi / 3 if size < 13 else math.pi / 5, math.pi))


def draw_blur(
    generator: torch.Generator, low: float, high: float, strength: float, sinc: float = 0.1
) -> tuple[Tensor, str]:
    """A random kernel, and what it is in words.

    Args:
        generator: where the numbers come from.
        low, high: range of the widths in pixels.
        strength: factor of the widths.
        sinc: probability of a low pass instead of a Gaussian.
    """
    if uniform(generator, 0, 1) < sinc:
        return draw_sinc(generator), "low pass"
    number = pick(generator, _WEIGHTS)
    size = SIZES[pick(generator, [1.0] * len(SIZES))]
    shape = _SHAPES[number]
    first, second = (max(1e-3, strength * uniform(generator, low, high)) for _ in range(2))
    angle = uniform(generator, -math.pi, math.pi)
    exponent = uniform(generator, *_EXPONENTS[shape])
    sigma = (first, first) if number % 2 == 0 else (first, second)
    return gaussian_kernel(size, sigma, angle, shape, exponent), f"blur {sigma[0]:.2f} x {sigma[1]:.2f} px"


def filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Pictures (B, C, H, W) through one odd kernel, mirrored at the rim (repeated where they are too small)."""
    pad = kernel.shape[-1] // 2
    mode = "reflect" if min(images.shape[-2:]) > pad else "replicate"
    padded = functional.pad(images, (pad, pad, pad, pad), mode=mode)
    weight = kernel.to(images)[None, None].expand(images.shape[1], 1, -1, -1)
    return functional.conv2d(padded, weight, groups=images.shape[1])
