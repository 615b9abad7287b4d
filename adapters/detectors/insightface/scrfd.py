"""SCRFD before and after its network: picture into the input square, nine outputs into faces.

Follows insightface 2.x, ``model_zoo/scrfd.py`` (MIT). Paper: Guo, Deng, Lattas, Zafeiriou 2022, "Sample and Computation
Redistribution for Efficient Face Detection". Quirks kept: centres of cells at their corner, one scale for both axes,
candidates of all input sizes suppressed together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ....faces.boxes import nms
from ....faces.types import Faces

STRIDES = (8, 16, 32)
ANCHORS = 2
OVERLAP = 0.4
DEFAULT_SIZES = ((128, 128), (640, 640))
_COEFFICIENT_BITS = 11

Run = Callable[[Tensor], Sequence[Tensor]]
Size = tuple[int, int]


@dataclass(frozen=True)
class Fitted:
    """A picture in the input square, top-left, black elsewhere.

    Attributes:
        blob: (1, 3, height, width) RGB, ``(v - 127.5) / 128``.
        scale: input pixels for one picture pixel, by the height, used for both axes.
    """

    blob: Tensor
    scale: float


def detect(pixels: Tensor, run: Run, score: float, sizes: Sequence[Size] = DEFAULT_SIZES) -> Faces:
    """Faces of one picture.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        run: the network: blob (1, 3, h, w) -> nine outputs, scores, boxes and points of strides 8, 16, 32.
        score: least score.
        sizes: (width, height) of the inputs to look at; large close-ups are found in the small one.
    """
    parts = []
    for size in sizes:
        fitted = fit(pixels, size)
        boxes, points, scores = decode(run(fitted.blob), size, score)
        parts.append((boxes / fitted.scale, points / fitted.scale, scores))
    boxes, points, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    kept = nms(boxes, scores, OVERLAP, inclusive=True)
    return Faces(boxes[kept], points[kept], scores[kept])


def fit(pixels: Tensor, size: Size) -> Fitted:
    """Scale a picture (H, W, 3) uint8 into ``size`` (width, height), keeping its aspect."""
    height, width = pixels.shape[:2]
    if height / width > size[1] / size[0]:
        new_height, new_width = size[1], int(size[1] / (height / width))
    else:
        new_height, new_width = int(size[0] * (height / width)), size[0]
    square = torch.zeros(size[1], size[0], 3)
    if new_height and new_width:
        square[:new_height, :new_width] = resize_bilinear(pixels, new_height, new_width).float()
    blob = ((square - 127.5) / 128).permute(2, 0, 1)[None].contiguous()
    return Fitted(blob, max(new_height, 1) / height)


def decode(outputs: Sequence[Tensor], size: Size, score: float) -> tuple[Tensor, Tensor, Tensor]:
    """Nine outputs -> boxes (N, 4), points (N, 5, 2), scores (N,) in input pixels, score at least ``score``."""
    parts = []
    for level, stride in enumerate(STRIDES):
        scores = outputs[level].reshape(-1)
        chosen = (scores >= score).nonzero()[:, 0]
        centres = _centres(size, stride)[chosen]
        reach = outputs[level + 3].reshape(-1, 4)[chosen] * stride
        shifts = outputs[level + 6].reshape(-1, 5, 2)[chosen] * stride
        boxes = torch.cat([centres - reach[:, :2], centres + reach[:, 2:]], dim=1)
        parts.append((boxes, centres[:, None] + shifts, scores[chosen]))
    boxes, points, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    return boxes, points, scores


def _centres(size: Size, stride: int) -> Tensor:
    """(N, 2) x and y of every anchor: rows, then columns, then the two anchors of a cell."""
    rows = torch.arange(size[1] // stride) * stride
    columns = torch.arange(size[0] // stride) * stride
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    return grid.repeat_interleave(ANCHORS, dim=0).float()


def best(faces: Faces, image_size: Size, count: int, metric: Literal["central", "area"] = "central") -> Faces:
    """The ``count`` faces insightface would keep of a picture of (height, width): large and central, or just large."""
    size = faces.boxes[:, 2:] - faces.boxes[:, :2]
    values = size.prod(dim=1)
    if metric == "central":
        middle = torch.tensor([image_size[1] // 2, image_size[0] // 2])
        offset = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - middle
        values = values - 2 * offset.square().sum(dim=1)
    return faces.take(torch.argsort(values, descending=True)[:count].tolist())


def resize_bilinear(pixels: Tensor, height: int, width: int) -> Tensor:
    """(H, W, C) uint8 -> (height, width, C) uint8, bit for bit as OpenCV's ``INTER_LINEAR`` in 11-bit fixed point."""
    if pixels.shape[:2] == (2 * height, 2 * width):
        quarters = pixels.reshape(height, 2, width, 2, -1).int()
        return ((quarters.sum(dim=(1, 3)) + 2) >> 2).to(torch.uint8)
    top, bottom, above, below = _taps(pixels.shape[0], height)
    left, right, before, after = _taps(pixels.shape[1], width)
    source = pixels.to(torch.int32)
    rows = source[:, left] * before[:, None] + source[:, right] * after[:, None]
    upper = (above[:, None, None] * (rows[top] >> 4)) >> 16
    lower = (below[:, None, None] * (rows[bottom] >> 4)) >> 16
    return ((upper + lower + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _taps(source: int, target: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two source places of each target place and their fixed-point weights."""
    centre = ((torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5).float()
    low = centre.floor()
    part = centre - low
    one = 1 << _COEFFICIENT_BITS
    weights = [(value * one).round().to(torch.int32) for value in (1 - part, part)]
    first, second = (low.long() + step for step in (0, 1))
    return first.clamp(0, source - 1), second.clamp(0, source - 1), weights[0], weights[1]
