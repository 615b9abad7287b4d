"""Resampling a picture through an affine matrix, with the coordinates of OpenCV: pixel centres at integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Padding = Literal["zeros", "border"]
Kernel = Literal["bilinear", "bicubic"]

# Values (pixels x channels, read and written) that one call of the sampler may hold: 256 MB of float32.
_CHUNK_VALUES = 1 << 26


def invert(matrices: Tensor) -> Tensor:
    """Return the inverse affine matrices (..., 2, 3), computed in float64, in the dtype and device given."""
    double = matrices.detach().cpu().double()
    linear = torch.linalg.inv(double[..., :2])
    shift = -linear @ double[..., 2:]
    return torch.cat([linear, shift], dim=-1).to(matrices.device, matrices.dtype)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """Return the affine matrices (..., 2, 3) that apply ``first`` and then ``second``."""
    linear = second[..., :2] @ first[..., :2]
    shift = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return torch.cat([linear, shift], dim=-1)


def transform_points(points: Tensor, matrices: Tensor) -> Tensor:
    """Return points (..., P, 2) moved by affine matrices (..., 2, 3)."""
    matrices = matrices.to(points.device, points.dtype)
    return points @ matrices[..., :2].transpose(-1, -2) + matrices[..., 2].unsqueeze(-2)


def warp(
    images: Tensor,
    matrices: Tensor,
    size: int | tuple[int, int],
    padding: Padding = "zeros",
    kernel: Kernel = "bilinear",
) -> Tensor:
    """Return the crops (B, C, h, w) that ``matrices`` cut from ``images``.

    Args:
        images: (B, C, H, W), any floating dtype and device; gradients flow through.
        matrices: (B, 2, 3) from picture to crop.
        size: side of a square crop, or (h, w).
        padding: what lies outside the picture: zeros (blended in at the rim, as OpenCV's constant border) or the
            nearest pixel of the border.
        kernel: bilinear as in the authors' code; bicubic (a = -0.75) keeps more detail and may leave 0..1 a little.
    """
    height, width = (size, size) if isinstance(size, int) else size
    backward = invert(matrices.detach().cpu().double())
    if images.shape[0] == 0:
        return images.new_zeros(0, images.shape[1], height, width)
    each = images.shape[1] * (images[0, 0].numel() + height * width) + 2 * height * width
    parts = chunks(images.shape[0], each)
    crops = [_sample(images[part], backward[part], height, width, padding, kernel) for part in parts]
    return crops[0] if len(crops) == 1 else torch.cat(crops)


def chunks(count: int, values_each: int) -> Iterator[slice]:
    """Yield slices of ``range(count)`` so that a slice stays within the sampler's memory, one item at least."""
    step = max(1, _CHUNK_VALUES // max(1, values_each))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _sample(
    images: Tensor, backward: Tensor, height: int, width: int, padding: Padding, kernel: Kernel = "bilinear"
) -> Tensor:
    # Border is made by clamping coordinates: the sampler's own border mode is missing on some devices. The wider
    # kernel reaches beyond the clamped ones and needs it.
    clamped = padding == "border"
    planes = [
        _coordinate(backward[:, axis], length, height, width, clamped).to(images.device)
        for axis, length in ((0, images.shape[-1]), (1, images.shape[-2]))
    ]
    grid = torch.stack(planes, dim=-1)
    mode = "border" if clamped and kernel == "bicubic" else "zeros"
    crops = F.grid_sample(images.float(), grid, mode=kernel, padding_mode=mode, align_corners=clamped)
    return crops.to(images.dtype)


def _coordinate(row: Tensor, length: int, height: int, width: int, clamped: bool) -> Tensor:
    """Return the sampler's coordinate (B, height, width) float32 along one axis of a picture ``length`` pixels long.

    The parts due to column and to row are formed in float64 and only their sum in float32, so that positions hold to
    a thousandth of a pixel in pictures of 8192.
    """
    scale = 2 / max(length - 1, 1) if clamped else 2 / length
    offset = -1.0 if clamped else 1 / length - 1
    column = row[:, 0, None] * torch.arange(width, dtype=torch.float64) * scale
    line = (row[:, 1, None] * torch.arange(height, dtype=torch.float64) + row[:, 2, None]) * scale + offset
    position = line.float()[:, :, None] + column.float()[:, None, :]
    return position.clamp(-1, 1) if clamped else position
