"""Masks of faces without a network: boxes, ovals in boxes, and ovals that turn with the five points."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from .align import align_matrix
from .errors import FaceChoice
from .types import FaceBatch

Shape = Literal["oval of the points", "oval of the box", "box"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
_TEMPLATE = "face_restore_512"
# Centre and half axes of a face, brow to chin and ear to ear, as fractions of that template's square.
_CENTRE, _AXES = (0.5, 0.58), (0.27, 0.33)


def shape_masks(faces: FaceBatch, shape: Shape, size: float = 1.0) -> Tensor:
    """Masks (N, H, W) float32, 0..1, one for each face: picture by picture, face by face.

    Args:
        faces: boxes and points in pixels.
        shape: see `SHAPES`. The oval of the points reaches from above the brows to the chin and turns with the face.
        size: factor about the shape's centre.

    Raises:
        FaceChoice: another shape.
    """
    if shape not in SHAPES:
        raise FaceChoice("shape", expected=", ".join(SHAPES), found=repr(shape), cure="choose one of them")
    boxes = torch.cat([each.boxes for each in faces.images]).double()
    points = torch.cat([each.landmarks5 for each in faces.images]).double()
    if not len(boxes):
        return torch.zeros(0, *faces.image_size)
    matrices = align_matrix(points, _TEMPLATE, 1) if shape == SHAPES[0] else _of_boxes(boxes)
    centre, axes = (_CENTRE, _AXES) if shape == SHAPES[0] else ((0.5, 0.5), (0.5, 0.5))
    return torch.stack([_drawn(each, centre, axes, size, faces.image_size, shape == "box") for each in matrices])


def _of_boxes(boxes: Tensor) -> Tensor:
    """(N, 2, 3) from picture to a square of side 1 over the box."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    linear = torch.diag_embed(1 / sides)
    return torch.cat([linear, (-boxes[:, :2] / sides)[..., None]], dim=-1)


def _drawn(
    matrix: Tensor,
    centre: tuple[float, float],
    axes: tuple[float, float],
    size: float,
    picture: tuple[int, int],
    square: bool,
) -> Tensor:
    """One mask (H, W), its rim soft over a pixel."""
    x = torch.arange(picture[1], dtype=torch.float64)[None] + 0.5
    y = torch.arange(picture[0], dtype=torch.float64)[:, None] + 0.5
    across, down = (
        (row[0] * x + row[1] * y + row[2] - middle) / (axis * size)
        for row, middle, axis in zip(matrix, centre, axes, strict=True)
    )
    pixels = [axis * size / math.hypot(float(row[0]), float(row[1])) for row, axis in zip(matrix, axes, strict=True)]
    if square:
        inside = [
            ((1 - part.abs()) * reach + 0.5).clamp(0, 1) for part, reach in zip((across, down), pixels, strict=True)
        ]
        return torch.minimum(*inside).float()
    # First-order distance to the ellipse: its equation over its slope, both in pixels.
    radius = torch.sqrt(across.square() + down.square())
    slope = torch.sqrt((across / pixels[0]).square() + (down / pixels[1]).square()).clamp(min=1e-9)
    distance = (1 - radius) * radius.clamp(min=1e-9) / slope
    return (distance + 0.5).clamp(0, 1).float()
