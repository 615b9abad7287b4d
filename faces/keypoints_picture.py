"""The keypoint picture that guides InstantID's ControlNet: four limbs from the nose, and five dots.

Follows ``draw_kps`` of InstantX/InstantID (pipeline_stable_diffusion_xl_instantid.py), which draws with OpenCV's
``ellipse2Poly``, ``fillConvexPoly`` and ``circle``, see `faces.drawing`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .drawing import Colour, fill_circle, fill_convex, limb
from .errors import BadLandmarks, NoFaceFound
from .types import FaceBatch

# Red, green, blue, yellow, magenta; eyes, nose, mouth corners.
COLOURS: tuple[Colour, ...] = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
NOSE = 2
LIMBS = (0, 1, 3, 4)
LIMB_HALF_WIDTH = 4
DOT_RADIUS = 10
# Limbs are dimmed, dots are not.
LIMB_BRIGHTNESS = 0.6


def draw_keypoints(
    landmarks5: Tensor, height: int, width: int, half_width: int = LIMB_HALF_WIDTH, radius: int = DOT_RADIUS
) -> Tensor:
    """Draw the five points of faces on black.

    Several faces share the canvas: all limbs first, then all dots (the authors draw one face).

    Args:
        landmarks5: (F, 5, 2) pixels: eyes, nose, mouth corners.
        height, width: size of the picture.
        half_width: half the thickness of a limb.
        radius: of a dot.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        BadLandmarks: another shape, or points that are not finite.
    """
    faces = _checked(landmarks5)
    canvas = torch.zeros(height, width, 3, dtype=torch.uint8)
    for points in faces:
        for start in LIMBS:
            fill_convex(canvas, limb(points[start], points[NOSE], half_width), COLOURS[start])
    canvas = (canvas.double() * LIMB_BRIGHTNESS).to(torch.uint8)
    for points in faces:
        for (x, y), colour in zip(points, COLOURS, strict=True):
            fill_circle(canvas, (int(x), int(y)), radius, colour)
    return canvas


def keypoints_pictures(faces: FaceBatch, height: int = 0, width: int = 0) -> Tensor:
    """Keypoint pictures (B, height, width, 3), 0..1, of every face of each picture of a batch.

    Args:
        faces: the faces.
        height, width: size of the result, 0 that of the pictures. The points move as in a picture that is scaled to
            fill it and cut around its centre, so that no face is stretched.

    Raises:
        NoFaceFound: no picture has a face. A single picture without one is black.
    """
    if not any(faces.counts):
        raise NoFaceFound(
            "keypoint picture",
            expected="a face in at least one picture",
            found=f"none in {len(faces)}",
            cure="use another picture, lower the detector's score, or give the points by hand",
        )
    rows, columns = faces.image_size
    height, width = height or rows, width or columns
    scale = max(width / columns, height / rows)
    corner = torch.tensor([(width - columns * scale) / 2, (height - rows * scale) / 2])
    pictures = [draw_keypoints(one.landmarks5 * scale + corner, height, width) for one in faces.images]
    return torch.stack(pictures).float() / 255


def _checked(landmarks5: Tensor) -> list[list[tuple[float, float]]]:
    if landmarks5.ndim != 3 or tuple(landmarks5.shape[1:]) != (5, 2) or not bool(torch.isfinite(landmarks5).all()):
        raise BadLandmarks(
            "keypoint picture",
            expected="finite landmarks5 (F, 5, 2)",
            found=f"a tensor of shape {tuple(landmarks5.shape)}",
            cure="give five points for each face: two eye centres, nose tip, two mouth corners",
        )
    return [[(float(x), float(y)) for x, y in face] for face in landmarks5.double().tolist()]
