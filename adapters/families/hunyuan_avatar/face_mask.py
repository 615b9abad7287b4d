"""Where each character of a clip is: boxes, parts of faces or drawn masks, at the size of latents.

Facts: ``get_facemask`` in ``hymm_sp/data_kits/face_align`` and ``audio_dataset.py``, and the mask's use in
``hymm_sp/modules/models_audio.py`` of Tencent-Hunyuan/HunyuanVideo-Avatar. A box becomes three times as wide and as
high, so that it covers moderate movement; a latent mask is bilinear, and the DiT's tokens take its even rows and
columns. The official code has one box for the whole clip; boxes that move with a face are this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.boxes import area as box_area
from ....faces.errors import BadMask
from ....faces.masks import resize
from .windows import RATE

# Pixels for one cell of a latent.
CELL = 8
AREA = 3.0
Overlap = Literal["nearest", "share", "keep"]
OVERLAPS: tuple[str, ...] = get_args(Overlap)
PixelBox = tuple[int, int, int, int]


def pixel_box(box: Sequence[float] | None, height: int, width: int, area: float = AREA) -> PixelBox:
    """The part of a picture, ``x1 y1 x2 y2`` in whole pixels (the ends not in it), that is the character's.

    Args:
        box: of the face, ``x1 y1 x2 y2`` in pixels; None takes the whole picture, as the official code does without
            a face.
        height: of the picture.
        width: of the picture.
        area: how many times wider and higher than the face.
    """
    x1, y1, x2, y2 = (0.0, 0.0, float(width), float(height)) if box is None else map(float, box)
    across, down = (x2 - x1) * area, (y2 - y1) * area
    # Floor division of floats, as the official code has it.
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    left, right = max(x - across // 2, 0), min(x + across // 2, width)
    top, bottom = max(y - down // 2, 0), min(y + down // 2, height)
    return int(left), int(top), int(right), int(bottom)


def box_masks(boxes: Sequence[PixelBox], height: int, width: int) -> Tensor:
    """Masks (F, H, W), 1 inside each box."""
    masks = torch.zeros(len(boxes), height, width)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def latent_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks (F, H, W) of pictures at the size of latents: (F, height, width), with a soft rim."""
    return resize(masks, height, width)


def token_masks(masks: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Latent masks (F, h, w) on a DiT's tokens: (frames, height, width), nearest in time and place.

    One mask serves all frames; any other number than ``frames`` is stretched in time.
    """
    if masks.shape[0] == 1:
        masks = masks.expand(frames, -1, -1)
    return functional.interpolate(masks[None, None], size=(frames, height, width), mode="nearest")[0, 0]


def latent_times(masks: Tensor, frames: int) -> Tensor:
    """Masks of a clip's video frames (F, h, w) at its latent frames: (frames, h, w); 1 or ``frames`` stay as they are.

    The first latent frame is one video frame, each other one four: where the character is in any of them counts.

    Raises:
        BadMask: a number of masks that is neither one, nor that of the latent frames, nor that of the video frames.
    """
    count = masks.shape[0]
    if count in (1, frames):
        return masks
    if count != RATE * (frames - 1) + 1:
        video = RATE * (frames - 1) + 1
        raise BadMask(
            "masks of a character",
            expected=f"1 mask, {video} (one for each video frame) or {frames} (one for each latent frame)",
            found=f"{count}",
            cure="give as many frames as the clip has",
        )
    rest = masks[1:].view(frames - 1, RATE, *masks.shape[1:]).amax(1)
    return torch.cat((masks[:1], rest))


def official_choice(boxes: Tensor) -> int:
    """Which of several faces (F, 4) the official code takes: the last one larger than the first, else the first.

    It compares every face with the first only, so this is not always the largest one.
    """
    areas = box_area(boxes)
    larger = [number for number in range(1, len(boxes)) if areas[number] > areas[0]]
    return larger[-1] if larger else 0


def outline(mask: Tensor) -> PixelBox | None:
    """The smallest box ``x1 y1 x2 y2`` (the ends not in it) around a mask (H, W) above a half; None if it is empty."""
    rows, columns = (torch.nonzero((mask > 0.5).any(axis))[:, 0] for axis in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def apart(masks: Sequence[Tensor], centres: Sequence[Tensor], overlap: Overlap) -> list[Tensor]:
    """Settle whose the places are that several characters claim; a place that one alone claims stays as it is.

    Args:
        masks: of each character, (F, h, w), 0..1, all of one shape.
        centres: of each character, (F, 2), ``x y`` in cells of the masks; used by ``nearest``.
        overlap: ``nearest`` gives each place to the character whose centre is nearest (the first of equals), so that
            no two masks meet; ``share`` divides by the sum where it is above 1; ``keep`` changes nothing.
    """
    stacked = torch.stack(list(masks))
    if overlap == "keep" or len(masks) == 1:
        return list(stacked)
    if overlap == "share":
        return list(stacked / stacked.sum(0).clamp(min=1))
    height, width = stacked.shape[-2:]
    y = torch.arange(height).view(1, -1, 1) + 0.5
    x = torch.arange(width).view(1, 1, -1) + 0.5
    away = torch.stack([(x - at[:, 0, None, None]).square() + (y - at[:, 1, None, None]).square() for at in centres])
    away = torch.where(stacked > 0, away, torch.inf)
    owner = away.argmin(0)
    return [torch.where(owner == number, mask, 0.0) for number, mask in enumerate(stacked)]
