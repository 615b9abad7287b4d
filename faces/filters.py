"""Morphology and blur with OpenCV's conventions: even kernels anchored at k / 2, borders mirrored without the edge."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# OpenCV takes these instead of sampling a Gaussian when no sigma is given.
_SMALL_KERNELS: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}


def dilate(masks: Tensor, size: int) -> Tensor:
    """Return masks (..., H, W) dilated once by a square of ``size``; nothing lies outside the picture."""
    planes = masks.reshape(1, -1, *masks.shape[-2:])
    before, after = size // 2, size - 1 - size // 2
    low = float("-inf")
    planes = F.max_pool2d(F.pad(planes, (before, after, 0, 0), value=low), (1, size), stride=1)
    planes = F.max_pool2d(F.pad(planes, (0, 0, before, after), value=low), (size, 1), stride=1)
    return planes.reshape(masks.shape)


def erode(masks: Tensor, size: int) -> Tensor:
    """Return masks (..., H, W) eroded once by a square of ``size``; the picture's border does not erode."""
    return -dilate(-masks, size)


def gaussian_kernel(size: int, sigma: float = 0.0) -> Tensor:
    """Return OpenCV's 1-D kernel (size,) float32; ``sigma`` 0 derives it from the size, which must be odd."""
    if sigma <= 0 and size in _SMALL_KERNELS:
        return torch.tensor(_SMALL_KERNELS[size])
    if sigma <= 0:
        sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    distance = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    kernel = torch.exp(-distance.square() / (2 * sigma * sigma))
    return (kernel / kernel.sum()).float()


def gaussian_blur(masks: Tensor, size: int, sigma: float = 0.0) -> Tensor:
    """Return masks (..., H, W) blurred by a Gaussian of ``size`` (odd) pixels, borders mirrored without the edge."""
    planes = masks.reshape(-1, 1, *masks.shape[-2:])
    kernel = gaussian_kernel(size, sigma).to(masks.device, masks.dtype)
    height, width = masks.shape[-2:]
    planes = planes.index_select(-1, mirrored(width, size // 2).to(masks.device))
    planes = F.conv2d(planes, kernel.reshape(1, 1, 1, -1))
    planes = planes.index_select(-2, mirrored(height, size // 2).to(masks.device))
    return F.conv2d(planes, kernel.reshape(1, 1, -1, 1)).reshape(masks.shape)


def float_kernel_size(sigma: float) -> int:
    """Return the kernel size that OpenCV derives from ``sigma`` for floating-point masks."""
    return round(8 * sigma + 1) | 1


def mirrored(length: int, margin: int) -> Tensor:
    """Return the indices of an axis enlarged by ``margin`` on both ends; works for margins beyond the length."""
    period = max(2 * (length - 1), 1)
    index = torch.arange(-margin, length + margin).remainder(period)
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)
