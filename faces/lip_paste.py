"""Cutting faces for MuseTalk, and pasting the painted ones, with the 8-bit arithmetic of the official code.

Follows ``musetalk/utils/blending.py`` and ``musetalk/models/vae.py`` of MuseTalk, and UnAvgLip's own blending. Crops
are 8-bit on the way, as officially; pixels of a frame outside the pasted mask stay bit-equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .lip_box import Box
from .lip_mask import SIDE, Region, region_mask
from .opencv_pixels import blur, resize_lanczos4, resize_linear
from .resample import resize_pixels, to_pixels

CROP = 256
Paste = Literal["raw", "neck", "jaw", "full_face", "box"]
PASTES: tuple[str, ...] = get_args(Paste)


@dataclass(frozen=True)
class PasteOptions:
    """How a painted face is blended in.

    Attributes:
        region: which part of the face; ``box`` needs no parser and takes the whole box.
        expand: side of the crop that is parsed, in sides of the box.
        blur_share: width of the blur as a share of that crop.
        upper: share of the crop, from its top, that is never changed.
        cheek: see `region_mask`.
    """

    region: Paste = "jaw"
    expand: float = 1.5
    blur_share: float = 0.05
    upper: float = 0.5
    cheek: int = 80


def paste_options(region: Paste, cheek: int = 80) -> PasteOptions:
    """The official numbers for a region: UnAvgLip blurs twice as wide and cuts nothing off."""
    if region == "full_face":
        return PasteOptions(region, blur_share=0.1, upper=0.0, cheek=cheek)
    return PasteOptions(region, cheek=cheek)


def cut_face(pixels: Tensor, box: Box) -> Tensor:
    """The box of a picture (3, H, W) uint8 as (3, 256, 256) uint8."""
    left, top, right, bottom = box
    return resize_lanczos4(pixels[:, top:bottom, left:right], CROP, CROP)


def cut_frame(image: Tensor, box: Box) -> Tensor:
    """`cut_face` of a frame (H, W, 3), 0..1."""
    left, top, right, bottom = box
    part = to_pixels(image[top:bottom, left:right].cpu()).movedim(-1, 0)
    return cut_face(part, (0, 0, right - left, bottom - top))


def masked(crops: Tensor) -> Tensor:
    """Crops (..., 256, 256) in 0..1 with a black lower half, which becomes exactly -1 for the VAE."""
    found = crops.clone()
    found[..., crops.shape[-2] // 2 :, :] = 0
    return found


def crop_box(box: Box, expand: float) -> Box:
    """The square around a box that is parsed; it may leave the picture."""
    left, top, right, bottom = box
    x, y = (left + right) // 2, (top + bottom) // 2
    half = int(max(right - left, bottom - top) // 2 * expand)
    return x - half, y - half, x + half, y + half


def cut_square(planes: Tensor, square: Box) -> Tensor:
    """A square (..., h, w) of planes (..., H, W), zero beyond them."""
    left, top, right, bottom = square
    height, width = planes.shape[-2:]
    found = planes.new_zeros(*planes.shape[:-2], bottom - top, right - left)
    inside = (max(0, left), max(0, top), min(width, right), min(height, bottom))
    if inside[2] > inside[0] and inside[3] > inside[1]:
        place = found[..., inside[1] - top : inside[3] - top, inside[0] - left : inside[2] - left]
        place.copy_(planes[..., inside[1] : inside[3], inside[0] : inside[2]])
    return found


def paste_mask(classes: Tensor | None, box: Box, options: PasteOptions) -> Tensor:
    """The soft mask (h, w) uint8 of the square `crop_box`, 0 outside the box.

    Args:
        classes: BiSeNet's class of each pixel (512, 512) of that square; None for the region ``box``.
        box: the face's.
        options: see `PasteOptions`.
    """
    square = crop_box(box, options.expand)
    width, height = square[2] - square[0], square[3] - square[1]
    part = torch.full((height, width), 255, dtype=torch.uint8)
    if classes is not None and options.region != "box":
        region: Region = options.region
        part = resize_pixels(region_mask(classes, region, options.cheek).to(torch.uint8) * 255, height, width)
    left, top, right, bottom = (value - square[number % 2] for number, value in enumerate(box))
    mask = torch.zeros_like(part)
    first = max(top, int(height * options.upper))
    mask[first:bottom, left:right] = part[first:bottom, left:right]
    return blur(mask, int(options.blur_share * width // 2 * 2) + 1)


def paste_face(pixels: Tensor, face: Tensor, box: Box, mask: Tensor, options: PasteOptions) -> Tensor:
    """A copy of a picture (3, H, W) uint8 with a face (3, h, w) uint8 of the box's size blended in by `paste_mask`."""
    square = crop_box(box, options.expand)
    large = cut_square(pixels, square)
    left, top, right, bottom = (value - square[number % 2] for number, value in enumerate(box))
    large[:, top:bottom, left:right] = face
    result = pixels.clone()
    height, width = pixels.shape[-2:]
    x1, y1, x2, y2 = max(0, square[0]), max(0, square[1]), min(width, square[2]), min(height, square[3])
    if x2 > x1 and y2 > y1:
        inner = (slice(y1 - square[1], y2 - square[1]), slice(x1 - square[0], x2 - square[0]))
        result[:, y1:y2, x1:x2] = _mixed(pixels[:, y1:y2, x1:x2], large[:, inner[0], inner[1]], mask[inner])
    return result


def paste_into(image: Tensor, painted: Tensor, classes: Tensor | None, box: Box, options: PasteOptions) -> Tensor:
    """A copy of a frame (H, W, 3), 0..1, with a painted crop (3, 256, 256), 0..1, blended in.

    Args:
        image: the frame.
        painted: what the network made of its crop.
        classes: see `paste_mask`.
        box: the face's.
        options: see `PasteOptions`.
    """
    square, result = crop_box(box, options.expand), image.clone()
    left, top = max(0, square[0]), max(0, square[1])
    # Only the square can change; a large frame is not worked on as a whole.
    part = result[top : square[3], left : square[2]]
    pixels = to_pixels(part.cpu()).movedim(-1, 0)
    face = resize_linear(to_pixels(painted.cpu()), box[3] - box[1], box[2] - box[0])
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    changed = paste_face(pixels, face, moved, paste_mask(classes, box, options), options)
    fresh = (changed.to(part.dtype) / 255).movedim(0, -1).to(part.device)
    part.copy_(torch.where((changed == pixels).movedim(0, -1).to(part.device), part, fresh))
    return result


def keep_upper(painted: Tensor, crops: Tensor) -> Tensor:
    """Painted crops (..., 256, 256) with the upper half of the crops they were made of, as UnAvgLip does."""
    half = painted.shape[-2] // 2
    return torch.cat([crops[..., :half, :], painted[..., half:, :]], dim=-2)


def square_classes(labels: Tensor, table: Tensor, square: Box) -> Tensor:
    """BiSeNet's classes (512, 512) uint8 of a square of a picture whose parts (H, W) are known.

    Args:
        labels: numbers of a parser's parts.
        table: of `class_table`.
        square: of `crop_box`.
    """
    classes = cut_square(table[labels.long()], square)
    side = classes.shape[-1]
    index = ((torch.arange(SIDE) + 0.5) * side / SIDE).long().clamp(max=side - 1)
    return classes[index][:, index]


def _mixed(below: Tensor, above: Tensor, mask: Tensor) -> Tensor:
    """Pillow's mixture of 8-bit pixels by an 8-bit mask."""
    weight = mask.int()
    total = above.int() * weight + below.int() * (255 - weight) + 128
    return (((total >> 8) + total) >> 8).to(torch.uint8)
