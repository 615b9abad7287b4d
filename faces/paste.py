"""Putting aligned crops back into their pictures; outside a crop's own region every pixel stays bit-equal."""

from __future__ import annotations

import torch
from torch import Tensor

from .masks import Box, region_of
from .warp import Padding, invert, warp


def paste(image: Tensor, crop: Tensor, matrix: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of the picture (H, W, 3) with the crop blended in.

    Only the bounding box of the warped crop is worked on (facefusion, paste_back): the mask is warped with zeros
    around it, the crop with its border repeated, and both are blended linearly.

    Args:
        image: (H, W, 3), 0..1.
        crop: (3, S, S), 0..1.
        matrix: (2, 3) from picture to crop, as `faces.align.align_matrix` gives it.
        mask: (S, S), 0..1, in pixels of the crop.
    """
    result = image.clone()
    box = region_of(invert(matrix.cpu().double()), crop.shape[-1], image.shape[0], image.shape[1])
    if box[2] > box[0] and box[3] > box[1]:
        soft = _into_box(mask[None], matrix, box, "zeros")[..., 0].clamp(0, 1)
        blend(result, _into_box(crop, matrix, box, "border"), box, soft)
    return result


def paste_in_region(image: Tensor, crop: Tensor, matrix: Tensor, box: Box, mask: Tensor) -> Tensor:
    """Return a copy of the picture with the crop blended in by a mask drawn in the picture.

    Args:
        image: (H, W, 3), 0..1.
        crop: (3, S, S), 0..1.
        matrix: (2, 3) from picture to crop.
        box: ``x1 y1 x2 y2`` of the mask, whole pixels inside the picture.
        mask: (y2 - y1, x2 - x1), 0..1, for example of `faces.masks.soft_square`.
    """
    result = image.clone()
    if mask.numel():
        blend(result, _into_box(crop, matrix, box, "zeros"), box, mask)
    return result


def _into_box(crop: Tensor, matrix: Tensor, box: Box, padding: Padding) -> Tensor:
    """Return the crop (h, w, C) as it lies in the box of its picture."""
    x1, y1, x2, y2 = box
    backward = invert(matrix.cpu().double())
    backward[:, 2] -= torch.tensor([x1, y1], dtype=torch.float64)
    place = warp(crop[None], backward[None], (y2 - y1, x2 - x1), padding)
    return place[0].movedim(0, -1)


def blend(image: Tensor, face: Tensor, box: Box, mask: Tensor) -> None:
    """Blend the face into the box of ``image``, in place; where the mask is 0 nothing is written."""
    x1, y1, x2, y2 = box
    region = image[y1:y2, x1:x2]
    face, mask = face.to(image.device, image.dtype), mask.to(image.device, image.dtype)[..., None]
    region.copy_(torch.where(mask > 0, (1 - mask) * region + mask * face, region))
