"""Sizes and pictures as DreamID-V's authors prepare them: frames, masks, and the photo of the person.

Follows ``utils/na_resize.py`` and ``generate_dreamidv.py`` of bytedance/DreamID-V. Quirks that the weights depend on:
a clip is never enlarged, keeps its proportions whatever size is asked for, and loses borders to whole 16 pixels; the
photo is letterboxed in white to the clip's proportions before anything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ....faces.errors import BadImage
from ....faces.resample import resize_pixels, to_pixels

MULTIPLE = 16
FRAME_STEP = 4
FRAMES = 81
WIDTH, HEIGHT = 832, 480


@dataclass(frozen=True)
class Fit:
    """How frames become the model's size.

    Attributes:
        source: (height, width) of the clip.
        resized: (height, width) after resizing.
        size: (height, width) after cutting, whole multiples of 16.
        corner: (top, left) of the cut in the resized frame.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    corner: tuple[int, int]


def fit(height: int, width: int, area: int) -> Fit:
    """The size at which a clip of ``height`` x ``width`` is worked on, for an area in pixels.

    Raises:
        BadImage: nothing of 16 x 16 pixels is left.
    """
    scale = min(1.0, math.sqrt(area / (height * width)))
    resized = round(height * scale), round(width * scale)
    size = resized[0] // MULTIPLE * MULTIPLE, resized[1] // MULTIPLE * MULTIPLE
    if not all(size):
        raise BadImage(
            "frames for DreamID-V",
            expected=f"at least {MULTIPLE} x {MULTIPLE} pixels at the chosen area",
            found=f"{resized[1]} x {resized[0]}",
            cure="use a larger clip, or set a larger area",
        )
    corner = round((resized[0] - size[0]) / 2), round((resized[1] - size[1]) / 2)
    return Fit((height, width), resized, size, corner)


def fitted(pixels: Tensor, to: Fit) -> Tensor:
    """8-bit pictures (..., H, W) of the clip's size, resized and cut, uint8."""
    pixels = resize_pixels(pixels, *to.resized)
    (top, left), (height, width) = to.corner, to.size
    return pixels[..., top : top + height, left : left + width]


def letterboxed(photo: Tensor, height: int, width: int) -> Tensor:
    """The 8-bit photo (3, h, w) inside (3, height, width), centred on white, uint8."""
    ratio = photo.shape[2] / photo.shape[1]
    if ratio > width / height:
        inner_height, inner_width = max(1, int(width / ratio)), width
    else:
        inner_height, inner_width = height, max(1, int(height * ratio))
    canvas = torch.full((3, height, width), 255, dtype=torch.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = resize_pixels(photo, inner_height, inner_width, "lanczos")
    canvas[:, top : top + inner_height, left : left + inner_width] = inner
    return canvas


def model_frames(images: Tensor, to: Fit) -> Tensor:
    """Pictures (B, H, W, C), 0..1, at the model's size, 0..1 float32."""
    pixels = to_pixels(images).movedim(-1, 1)
    return fitted(pixels, to).movedim(1, -1).float() / 255


def model_reference(photo: Tensor, to: Fit) -> Tensor:
    """The photo (h, w, 3), 0..1, letterboxed to the clip's size and brought to the model's: (1, height, width, 3)."""
    canvas = letterboxed(to_pixels(photo).movedim(-1, 0), *to.source)
    return fitted(canvas, to).movedim(0, -1)[None].float() / 255


def padded_count(frames: int) -> int:
    """The smallest 4n + 1 that holds ``frames``."""
    return -(-(frames - 1) // FRAME_STEP) * FRAME_STEP + 1


def restored(made: Tensor, original: Tensor, to: Fit) -> Tensor:
    """Swapped frames (B, h, w, 3) at the clip's own size, the borders that were cut taken from ``original``.

    Args:
        made: frames of the model, 0..1.
        original: frames (B, H, W, 3) of the clip, 0..1.
        to: how ``original`` became the model's size.
    """
    (top, left), (height, width) = to.corner, to.size
    if to.resized == to.source:
        result = original.clone()
        result[:, top : top + height, left : left + width] = made.to(original)
        return result
    small = model_frames_whole(original, to)
    small[:, top : top + height, left : left + width] = made.to(small)
    grown = resize_pixels(to_pixels(small).movedim(-1, 1), *to.source).movedim(1, -1).to(original) / 255
    # Only whole pixels inside the cut come from the model.
    y, x = (size / inner for size, inner in zip(to.source, to.resized, strict=True))
    rows = slice(math.ceil(top * y), math.floor((top + height) * y + 1e-9))
    columns = slice(math.ceil(left * x), math.floor((left + width) * x + 1e-9))
    result = original.clone()
    result[:, rows, columns] = grown[:, rows, columns]
    return result


def model_frames_whole(images: Tensor, to: Fit) -> Tensor:
    """Pictures (B, H, W, 3), 0..1, resized and not cut, 0..1 float32."""
    return resize_pixels(to_pixels(images).movedim(-1, 1), *to.resized).movedim(1, -1).float() / 255
