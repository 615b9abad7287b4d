"""How MUSIQ cuts a picture into tokens: three scales, patches of 32 pixels, places on a 10 x 10 grid.

Follows MUSIQ (Ke et al. 2021, arXiv:2108.05997) as pyiqa's ``multiscale_trans_util.py`` states it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PATCH = 32
GRID = 10
LONGER_SIDES = (224, 384)


@dataclass(frozen=True, eq=False)
class PictureTokens:
    """The tokens of pictures of one size, N for each.

    Attributes:
        values: (B, N, 3072) pixels of each patch, channel by channel.
        places: (N,) place on the grid, row * 10 + column.
        scales: (N,) 0, 1 for the resized pictures and 2 for the original.
        mask: (N,) 1 for a patch, 0 for padding.
    """

    values: Tensor
    places: Tensor
    scales: Tensor
    mask: Tensor


def picture_tokens(pictures: Tensor) -> PictureTokens:
    """Tokens of pictures (B, 3, H, W), RGB 0..1."""
    height, width = pictures.shape[-2:]
    x = (pictures - 0.5) * 2
    parts: list[PictureTokens] = []
    for scale, side in enumerate(LONGER_SIDES):
        ratio = side / max(height, width)
        size = (round(height * ratio), round(width * ratio))
        resized = functional.interpolate(x, size=size, mode="bicubic", align_corners=False)
        parts.append(_padded(_tokens(resized, scale), math.ceil(side / PATCH) ** 2))
    parts.append(_tokens(x, len(LONGER_SIDES)))
    return PictureTokens(
        torch.cat([part.values for part in parts], dim=1),
        torch.cat([part.places for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat([part.mask for part in parts]),
    )


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding of one axis: (before, after)."""
    total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """x (..., H, W) with zeros as TensorFlow pads for a kernel and stride."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return functional.pad(x, (left, right, top, bottom))


def _tokens(x: Tensor, scale: int) -> PictureTokens:
    patches = functional.unfold(pad_same(x, PATCH, PATCH), PATCH, stride=PATCH).transpose(1, 2)
    rows, columns = (math.ceil(side / PATCH) for side in x.shape[-2:])
    places = (_spread(rows)[:, None] * GRID + _spread(columns)[None, :]).flatten().to(x.device)
    count = rows * columns
    return PictureTokens(patches, places, places.new_full((count,), scale), places.new_ones(count))


def _spread(count: int) -> Tensor:
    """The cell of the grid's axis for each of ``count`` patches, by nearest interpolation: (count,) int64."""
    cells = torch.arange(GRID, dtype=torch.float32)[None, None]
    return functional.interpolate(cells, size=count, mode="nearest")[0, 0].long()


def _padded(tokens: PictureTokens, length: int) -> PictureTokens:
    missing = length - tokens.values.shape[1]
    if missing <= 0:
        return PictureTokens(
            tokens.values[:, :length], tokens.places[:length], tokens.scales[:length], tokens.mask[:length]
        )
    return PictureTokens(
        functional.pad(tokens.values, (0, 0, 0, missing)),
        functional.pad(tokens.places, (0, missing)),
        functional.pad(tokens.scales, (0, missing)),
        functional.pad(tokens.mask, (0, missing)),
    )
