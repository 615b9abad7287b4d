"""FFHQ alignment of a face and the picture e4e sees, with the numbers of the authors' Pillow code.

Follows ``script/utils.py`` (align_face) and ``script/ProcessWildImage.py`` of w-plus-adapter; the alignment is that of
FFHQ (Karras et al. 2019). What lies outside the picture is black: the border is not filled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ....faces.filters import gaussian_blur
from ....faces.resample import resize_axis, resize_pixels
from .arch import IMAGE_SIZE

CROP_SIZE = 512
TRANSFORM_SIZE = 4096
# The authors drop faces whose quad is no wider than this.
SMALLEST_WIDTH = 160
_ROWS_AT_ONCE = 128


def ffhq_quad(landmarks5: Tensor) -> Tensor:
    """The quad (4, 2) float64 that becomes the crop: top left, bottom left, bottom right, top right.

    Args:
        landmarks5: (5, 2) pixels; the nose is not read.
    """
    eye_left, eye_right, _, mouth_left, mouth_right = landmarks5.double().cpu()
    eye, eyes = (eye_left + eye_right) / 2, eye_right - eye_left
    mouth = (mouth_left + mouth_right) / 2 - eye
    turn = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    x = eyes - mouth.flip(0) * turn
    x = x / torch.hypot(x[0], x[1])
    x = x * max(float(torch.hypot(*eyes)) * 2.0, float(torch.hypot(*mouth)) * 1.8)
    y = x.flip(0) * turn
    centre = eye + mouth * 0.1
    return torch.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def quad_width(quad: Tensor) -> float:
    """Width of a quad (4, 2) in pixels: the official measure of a face's size."""
    return float(quad[:, 0].max() - quad[:, 0].min())


def align_face(pixels: Tensor, quad: Tensor, size: int = CROP_SIZE, transform_size: int = TRANSFORM_SIZE) -> Tensor:
    """Return the aligned crop (C, size, size) uint8.

    Args:
        pixels: (C, H, W) uint8.
        quad: (4, 2) of `ffhq_quad`.
        size: side of the crop.
        transform_size: side of the square the quad is warped to before it is made smaller.
    """
    side = 2 * float(torch.hypot(*((quad[3] - quad[0]) / 2)))
    shrink = math.floor(side / size * 0.5)
    if shrink > 1:
        height, width = (round(length / shrink) for length in pixels.shape[1:])
        pixels, quad, side = resize_pixels(pixels, height, width, "lanczos"), quad / shrink, side / shrink
    pixels, quad = _cut(pixels, quad, max(round(side * 0.1), 3))
    rows = []
    for start in range(0, transform_size, _ROWS_AT_ONCE):
        part = _quad_rows(pixels, quad + 0.5, range(start, min(start + _ROWS_AT_ONCE, transform_size)), transform_size)
        rows.append(part if transform_size == size else resize_axis(part, size, "lanczos"))
    warped = torch.cat(rows, dim=1)
    return warped if transform_size == size else resize_pixels(warped, size, size, "lanczos")


def _cut(pixels: Tensor, quad: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """The part of the picture around the quad, and the quad in it."""
    height, width = pixels.shape[1:]
    low, high = quad.amin(0), quad.amax(0)
    x1, y1 = (max(math.floor(float(value)) - border, 0) for value in low)
    x2 = min(math.ceil(float(high[0])) + border, width)
    y2 = min(math.ceil(float(high[1])) + border, height)
    if x2 - x1 < width or y2 - y1 < height:
        pixels = pixels[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        quad = quad - torch.tensor([x1, y1], dtype=quad.dtype)
    return pixels, quad


def _quad_rows(pixels: Tensor, quad: Tensor, rows: range, size: int) -> Tensor:
    """Rows of a bilinear warp of a quad to a square, (C, len(rows), size) uint8; outside black (Pillow, Geometry.c)."""
    across = torch.arange(size, dtype=torch.float64) + 0.5
    down = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5)[:, None]
    top_left, bottom_left, bottom_right, top_right = quad
    along_x, along_y = (top_right - top_left) / size, (bottom_left - top_left) / size
    twist = (bottom_right - bottom_left - top_right + top_left) / size / size
    x, y = (
        top_left[axis] + along_x[axis] * across + along_y[axis] * down + twist[axis] * across * down for axis in (0, 1)
    )
    height, width = pixels.shape[1:]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return _bilinear(pixels, x - 0.5, y - 0.5) * inside


def _bilinear(pixels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (C, ...) uint8 at places x, y; beyond the border the nearest pixel, fractions cut off as Pillow does."""
    height, width = pixels.shape[1:]
    left, top = x.floor(), y.floor()
    right_part, lower_part = x - left, y - top
    columns = [(left.int() + step).clamp_(0, width - 1) for step in (0, 1)]
    lines = [(top.int() + step).clamp_(0, height - 1).mul_(width) for step in (0, 1)]
    # One row of the table holds all channels of a pixel, so that each corner is fetched once.
    table = pixels.flatten(1).T.contiguous().double()
    upper, lower = (_mixed(table, line, columns, right_part.reshape(-1, 1)) for line in lines)
    values = lower.sub_(upper).mul_(lower_part.reshape(-1, 1)).add_(upper).to(torch.uint8)
    return values.T.reshape(len(pixels), *x.shape)


def _mixed(table: Tensor, line: Tensor, columns: list[Tensor], part: Tensor) -> Tensor:
    left, right = (table.index_select(0, (line + column).flatten()) for column in columns)
    return right.sub_(left).mul_(part).add_(left)


def e4e_input(pixels: Tensor, background: Tensor | None) -> Tensor:
    """The picture e4e sees: (3, 256, 256) in -1..1, white where the background is.

    Args:
        pixels: (3, H, W) uint8 aligned crop.
        background: (H, W) uint8, 255 where the background is, or None to leave it.
    """
    image = (resize_pixels(pixels, IMAGE_SIZE, IMAGE_SIZE).float() - 127.5) / 127.5
    if background is None:
        return image
    mask = soft_background(background)
    return image * (1 - mask) + mask


def soft_background(background: Tensor) -> Tensor:
    """A background mask (H, W) uint8, blurred over 5 pixels and resized to (256, 256), 0..1."""
    blurred = (gaussian_blur(background.float(), 5) + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return resize_pixels(blurred, IMAGE_SIZE, IMAGE_SIZE).float() / 255
