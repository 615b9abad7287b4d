"""The landmark picture that DreamID's pose guider sees: white discs on black, of radius 3 in 512 pixels.

The paper shows such a picture and does not tell how it is drawn; this is this project's choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....faces.crops import CroppedFaces
from ....faces.errors import BadLandmarks, FaceChoice, NoFaceFound
from ....faces.types import FaceBatch
from ....faces.warp import transform_points

RADIUS = 3 / 512


def landmark_pictures(points: Tensor, size: float, height: int, width: int) -> Tensor:
    """Draw landmarks.

    Args:
        points: (B, K, 2) pixels of a square picture, pixel centres at whole numbers.
        size: side of that picture.
        height, width: of the result; the points move with it.

    Returns:
        (B, 3, height, width) float32, 0..1; a disc fades over one pixel.

    Raises:
        BadLandmarks: another shape, or points that are not finite.
    """
    if points.ndim != 3 or points.shape[-1] != 2 or not bool(torch.isfinite(points).all()):
        raise BadLandmarks(
            "landmark picture",
            expected="finite points (B, K, 2)",
            found=f"a tensor of shape {tuple(points.shape)}",
            cure="give the landmarks of one face for each picture",
        )
    scale = points.new_tensor([width / size, height / size])
    placed = (points.float() + 0.5) * scale - 0.5
    radius = max(RADIUS * max(height, width), 0.5)
    columns, rows = torch.arange(width, dtype=torch.float32), torch.arange(height, dtype=torch.float32)
    canvas = torch.zeros(len(points), height, width)
    for number in range(points.shape[1]):
        across = (columns - placed[:, number, :1])[:, None, :]
        down = (rows - placed[:, number, 1:])[:, :, None]
        away = (across.square() + down.square()).sqrt()
        canvas = torch.maximum(canvas, (radius + 0.5 - away).clamp(0, 1))
    return canvas[:, None].expand(-1, 3, -1, -1).contiguous()


def crop_landmarks(points: Sequence[Tensor], faces: FaceBatch) -> Tensor:
    """Landmark pictures (N, size, size, 3) of faces that were cut out, in the order of their crops.

    Args:
        points: (F, K, 2) pixels of each picture's faces.
        faces: from 'Crop Faces'.

    Raises:
        FaceChoice: faces that were not cut out.
        NoFaceFound: no face at all.
    """
    if not isinstance(faces, CroppedFaces) or faces.matrices is None:
        raise FaceChoice(
            "landmark pictures",
            expected="faces with the places of their crops",
            found="faces as they were detected",
            cure="connect the faces of 'Crop Faces'",
        )
    if not sum(faces.counts):
        raise NoFaceFound(
            "landmark pictures", expected="a face", found="none", cure="use another picture, or lower the score"
        )
    placed = transform_points(torch.cat(list(points)).double(), faces.matrices.double()).float()
    return landmark_pictures(placed, faces.size, faces.size, faces.size).movedim(1, -1)
