"""The box of a face as MuseTalk cuts it: its middle line lies just above the nose tip, its lower edge at the chin.

Follows ``musetalk/utils/preprocessing.py``: the lower half, from point 29 of 68 (on the nose, above its tip) to the
chin, is what gets painted; the upper half is as high. The official program has 68 points of DWPose; here five points
and the detector's box stand for them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .types import Faces

Box = tuple[int, int, int, int]
EXTRA_MARGIN = 10
# Where point 29 lies between the line of the eyes and the nose tip, in the mean of upright faces.
_NOSE = 2 / 3


def box_around(left: int, middle: int, right: int, chin: int) -> Box | None:
    """The box whose middle line, right and left edges and chin are given, all in pixels.

    None where it is no box and the detector's must serve: turned inside out, or beyond the picture's left edge.
    """
    box = (left, max(0, 2 * middle - chin), right, chin)
    return box if _proper(box) else None


def box_of_face(box: Tensor, landmarks5: Tensor, shift: int = 0) -> Box | None:
    """The box of a face with five points, or None where it is none.

    The sides and the chin are those of the detector's box, whose lower edge lies at the chin; point 29 is taken at two
    thirds of the way from the eyes to the nose tip.

    Args:
        box: (4,) of a detector.
        landmarks5: (5, 2).
        shift: moves the middle line down (v1's ``bbox_shift``): the mouth opens wider. v1.5 has 0.
    """
    eyes, nose = float(landmarks5[:2, 1].mean()), float(landmarks5[2, 1])
    middle = int(eyes + _NOSE * (nose - eyes)) + shift
    left, _, right, chin = (int(value) for value in box)
    return box_around(left, middle, right, chin)


def lip_box(faces: Faces, height: int, width: int, shift: int, margin: int) -> Box | None:
    """The box of the first face of a picture, inside it; None where there is no face, or none that can be cut.

    Args:
        faces: of the picture.
        height, width: of the picture.
        shift: as in `box_of_face`.
        margin: pixels added below the chin (v1.5: 10; v1: 0).
    """
    if not len(faces):
        return None
    found = box_of_face(faces.boxes[0], faces.landmarks5[0], shift) or _detected(faces.boxes[0])
    left, top, right, bottom = found
    inside = (max(0, left), max(0, top), min(width, right), min(height, bottom + margin))
    return inside if _proper(inside) else None


def _detected(box: Tensor) -> Box:
    left, top, right, bottom = (int(value) for value in torch.as_tensor(box))
    return left, top, right, bottom


def _proper(box: Box) -> bool:
    left, top, right, bottom = box
    return left >= 0 and right > left and bottom > top
