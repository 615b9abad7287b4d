"""Giving a picture the colours of another: by wavelet bands, or by mean and deviation of each channel.

Both follow the colour fix that StableSR and RestorerID publish (``colorfix``: wavelet reconstruction, and AdaIN of
Huang and Belongie 2017). Published numbers are for pictures in -1..1; `match_colour` takes 0..1.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from .errors import BadImage

Method = Literal["wavelet", "adain"]
METHODS: tuple[str, ...] = get_args(Method)
LEVELS = 5
EPSILON = 1e-5
KERNEL = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))


def bands(images: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """Detail (the sum of all bands) and the low band of pictures (B, C, H, W); together they are the picture."""
    high = torch.zeros_like(images)
    for level in range(levels):
        low = _blurred(images, 2**level)
        high = high + (images - low)
        images = low
    return high, images


def wavelet(images: Tensor, reference: Tensor, levels: int = LEVELS) -> Tensor:
    """Detail of ``images`` (B, C, H, W) on the low band of ``reference`` (B, C, H, W)."""
    return bands(images, levels)[0] + bands(reference, levels)[1]


def adain(images: Tensor, reference: Tensor) -> Tensor:
    """Pictures (B, C, H, W) with each channel's mean and deviation of ``reference`` (B, C, H, W)."""
    mean, deviation = _statistics(images)
    wanted_mean, wanted_deviation = _statistics(reference)
    return (images - mean) / deviation * wanted_deviation + wanted_mean


def match_colour(images: Tensor, reference: Tensor, method: Method = "wavelet", strength: float = 1.0) -> Tensor:
    """Pictures with the colours of others.

    Args:
        images: (B, H, W, 3), 0..1.
        reference: (1, H, W, 3) or (B, H, W, 3), 0..1; another size is stretched to that of the pictures.
        method: ``wavelet`` keeps local colours and needs pictures of the same content; ``adain`` matches the whole.
        strength: 0 leaves the pictures as they are.

    Returns:
        (B, H, W, 3), 0..1.

    Raises:
        BadImage: counts that do not fit, or an unknown method.
    """
    if method not in METHODS or len(reference) not in (1, len(images)):
        raise BadImage(
            "match colour",
            expected=f"{' or '.join(METHODS)}, and one reference or {len(images)}",
            found=f"{method} and {len(reference)} references",
            cure="give one reference for all pictures or one for each",
        )
    if strength == 0.0:
        return images
    planes, wanted = images.movedim(-1, 1) * 2 - 1, reference.to(images).movedim(-1, 1) * 2 - 1
    if wanted.shape[-2:] != planes.shape[-2:]:
        wanted = functional.interpolate(wanted, planes.shape[-2:], mode="bilinear", antialias=True)
    wanted = wanted.expand(len(planes), -1, -1, -1)
    matched = wavelet(planes, wanted) if method == "wavelet" else adain(planes, wanted)
    found = ((matched + 1) / 2).clamp(0, 1).movedim(1, -1)
    return found if strength == 1.0 else images.lerp(found, strength)


def _blurred(images: Tensor, radius: int) -> Tensor:
    channels = images.shape[1]
    kernel = images.new_tensor(KERNEL).div(16).expand(channels, 1, 3, 3)
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, dilation=radius, groups=channels)


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (B, C, 1, 1) of each channel."""
    flat = images.flatten(2)
    return flat.mean(2)[:, :, None, None], (flat.var(2) + EPSILON).sqrt()[:, :, None, None]
