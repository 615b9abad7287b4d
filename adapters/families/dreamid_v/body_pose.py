"""Pose pictures and masks of the authors' second way: body sticks, 68 points of the face, hull of the largest face.

Follows ``pose/dwpose/util.py`` and ``pose/extract.py`` of bytedance/DreamID-V, whose detectors (YOLOX and DWPose) are
not needed here: any 68 points in the iBUG order will do. Colours and limbs are OpenPose's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....faces.drawing import Colour, Point, fill_circle, fill_convex, limb
from ....faces.errors import BadLandmarks, NoFaceFound
from ....faces.filters import dilate
from ....faces.swap_masks import convex_hull

LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
COLOURS: tuple[Colour, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
WHITE: Colour = (255, 255, 255)
STICK, JOINT, FACE_POINT = 4, 4, 3
BRIGHTNESS = 0.6
GROWTH = 15


def draw_pose(faces: Tensor, height: int, width: int, bodies: Sequence[Tensor] = ()) -> Tensor:
    """The pose picture (height, width, 3) uint8.

    Args:
        faces: (F, 68, 2) pixels; points that are not above 0 are left away, as unsure ones are.
        height, width: of the picture.
        bodies: each (18, 2) pixels in OpenPose's order, NaN for a joint that was not found.
    """
    _check(faces)
    canvas = torch.zeros(height, width, 3, dtype=torch.uint8)
    joints = [[_joint(*point) for point in body.double().tolist()] for body in bodies]
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
        for body in joints:
            first, last = body[start], body[end]
            if first is not None and last is not None:
                fill_convex(canvas, limb(first, last, STICK), colour)
    canvas = (canvas.double() * BRIGHTNESS).to(torch.uint8)
    for number, colour in enumerate(COLOURS):
        for body in joints:
            if (place := body[number]) is not None:
                fill_circle(canvas, (int(place[0]), int(place[1])), JOINT, colour)
    for point in _whole(faces.reshape(-1, 2)):
        if point[0] > 0 and point[1] > 0:
            fill_circle(canvas, point, FACE_POINT, WHITE)
    return canvas


def face_mask(faces: Tensor, height: int, width: int) -> Tensor:
    """The mask (height, width), 0 or 1, of the largest face's hull, grown by 15 pixels' square.

    Args:
        faces: (F, 68, 2) pixels; unsure points, negative ones, do not count. Black where there is none.
        height, width: of the picture.
    """
    _check(faces)
    canvas = torch.zeros(height, width, 3, dtype=torch.uint8)
    found = [kept for kept in (face[(face >= 0).all(dim=1)] for face in faces) if len(kept)]
    if found:
        largest = max(found, key=lambda face: float((face.amax(0) - face.amin(0)).prod()))
        fill_convex(canvas, convex_hull(_whole(largest)), WHITE)
    return dilate((canvas[..., 0] > 0).float()[None], GROWTH)[0]


def clip_pictures(points: Sequence[Tensor], height: int, width: int, keep: bool = False) -> tuple[Tensor, Tensor]:
    """Pose pictures (B, height, width, 3), 0..1, and masks (B, height, width) of a clip, without bodies.

    Args:
        points: (F, 68, 2) pixels of the faces of each frame.
        height, width: of the frames.
        keep: give a frame without a face a black picture and an empty mask, instead of stopping.

    Raises:
        NoFaceFound: a frame has no face.
    """
    empty = [number for number, faces in enumerate(points) if not len(faces)]
    if empty and not keep:
        raise NoFaceFound(
            "pose pictures",
            expected="a face in every frame, as the model was trained",
            found=f"none in frame {', '.join(map(str, empty[:10]))}",
            cure="set on_missing_face to keep, or lower the detector's score",
        )
    pose = torch.stack([draw_pose(faces, height, width) for faces in points]).float() / 255
    return pose, torch.stack([face_mask(faces, height, width) for faces in points])


def _joint(x: float, y: float) -> tuple[float, float] | None:
    return None if x != x or y != y else (x, y)


def _whole(points: Tensor) -> list[Point]:
    return [(int(x), int(y)) for x, y in points.tolist()]


def _check(faces: Tensor) -> None:
    if faces.ndim != 3 or tuple(faces.shape[1:]) != (68, 2) or not bool(torch.isfinite(faces).all()):
        raise BadLandmarks(
            "pose picture",
            expected="finite points (F, 68, 2) in the iBUG order",
            found=f"a tensor of shape {tuple(faces.shape)}",
            cure="give 68 points for each face",
        )
