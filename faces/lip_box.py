"""The box of a face as MuseTalk cuts it: its middle line lies just above the nose tip, its lower edge at the chin.

Follows ``musetalk/utils/preprocessing.py``: the lower half, from point 29 of 68 (on the nose, above its tip) to the
chin, is what gets painted; the upper half is as high.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import BadLandmarks
from .types import Faces

Box = tuple[int, int, int, int]
EXTRA_MARGIN = 10
# Where point 29 lies between the line of the eyes and the nose tip, and how far below the mouth the chin is in
# distances from eyes to mouth: means of upright faces.
_NOSE = 2 / 3


def box_of_68(points: Tensor, shift: int = 0) -> Box | None:
    """The box of 68 points (68, 2) in the iBUG order, or None where it is none and the detector's box must serve.

    Args:
        points: pixels; their fractions are dropped, as officially.
        shift: moves the middle line down (v1's ``bbox_shift``): the mouth opens wider. v1.5 has 0.

    Raises:
        BadLandmarks: another number of points.
    """
    if points.shape != (68, 2):
        raise BadLandmarks(
            "face for lip-sync",
            expected="68 points (68, 2)",
            found=f"{tuple(points.shape)}",
            cure="give the 68 points of the iBUG order",
        )
    whole = points.long()
    middle = int(whole[29, 1]) + shift
    chin = int(whole[:, 1].max())
    box = (int(whole[:, 0].min()), max(0, 2 * middle - chin), int(whole[:, 0].max()), chin)
    return box if _proper(box) else None


def box_of_face(box: Tensor, landmarks5: Tensor, shift: int = 0) -> Box | None:
    """The box of a face with five points, or None where it is none.

    The sides and the chin are those of the detector's box, whose lower edge lies at the chin; point 29 is taken at two
    thirds of the way from the eyes to the nose tip.

    Args:
        box: (4,) of a detector.
        landmarks5: (5, 2).
        shift: as in `box_of_68`.
    """
    eyes, nose = float(landmarks5[:2, 1].mean()), float(landmarks5[2, 1])
    middle = int(eyes + _NOSE * (nose - eyes)) + shift
    left, _, right, chin = (int(value) for value in box)
    found = (left, max(0, 2 * middle - chin), right, chin)
    return found if _proper(found) else None


def lip_box(faces: Faces, height: int, width: int, shift: int, margin: int) -> Box | None:
    """The box of the first face of a picture, inside it; None where there is no face, or none that can be cut.

    Args:
        faces: of the picture.
        height, width: of the picture.
        shift: as in `box_of_68`.
        margin: pixels added below the chin (v1.5: 10; v1: 0).
    """
    if not len(faces):
        return None
    found = box_of_face(faces.boxes[0], faces.landmarks5[0], shift) or _detected(faces.boxes[0])
    left, top, right, bottom = found
    inside = (max(0, left), max(0, top), min(width, right), min(height, bottom + margin))
    return inside if _proper(inside) else None


def boxes_told(boxes: Sequence[Box | None]) -> str:
    """A sentence about the frames that have no box; empty where all have one."""
    missing = [number for number, box in enumerate(boxes) if box is None]
    return f"{len(missing)} of {len(boxes)} frames without a face" if missing else ""


def _detected(box: Tensor) -> Box:
    left, top, right, bottom = (int(value) for value in torch.as_tensor(box))
    return left, top, right, bottom


def _proper(box: Box) -> bool:
    left, top, right, bottom = box
    return left >= 0 and right > left and bottom > top
