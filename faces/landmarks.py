"""Landmarks5: what they are, what merely looks like them, and how other point sets become them.

Landmarks5 are eye centre on the image's left, eye centre on its right, nose tip, mouth corner on the image's left,
mouth corner on its right, of a face that stands upright; the order turns with the face, so that the first eye of a
face upside down is on the image's right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import BadLandmarks

ORDER = "eye centre on the image's left, eye centre on its right, nose tip, mouth corner left, mouth corner right"

# The ArcFace mean face inside the box that WIDER-FACE detectors draw (hair line to chin, temple to temple): a mean
# position, so good to about a tenth of the box.
_MEAN_IN_BOX = ((0.31, 0.39), (0.69, 0.39), (0.50, 0.58), (0.34, 0.77), (0.66, 0.77))

# As fractions of the squared spread of the five points. Profiles bring the eyes together and may cross them a little.
_CROSSED = -0.5
# As fractions of the length of the row of four points.
_ROW = 0.07
_OFF_ROW = 0.25


def check_landmarks5(points: Tensor, what: str = "landmarks5") -> Tensor:
    """Return ``points`` (N, 5, 2) or (5, 2) as float32 after checking that they can be landmarks5.

    Faces rolled by any angle and profiles pass. Refused are a wrong shape, values that are not finite, points that
    coincide, left and right exchanged, and five points whose first four are eye corners.

    Raises:
        BadLandmarks: with the number of the face, the reason and the cure.
    """
    if points.shape[-2:] != (5, 2) or points.ndim not in (2, 3):
        raise BadLandmarks(
            what,
            expected="five points (N, 5, 2): " + ORDER,
            found=f"a tensor of shape {tuple(points.shape)}",
            cure="give five (x, y) pairs for each face",
        )
    points = points.to(torch.float32)
    for number, face in enumerate(points.reshape(-1, 5, 2).double().cpu()):
        _check_face(face, what if points.ndim == 2 else f"{what} of face {number}")
    return points


def _check_face(face: Tensor, what: str) -> None:
    if not bool(torch.isfinite(face).all()):
        raise BadLandmarks(what, expected="finite numbers", found="NaN or infinity", cure="detect the face again")
    spread = float((face - face.mean(0)).square().sum(1).mean())
    if spread < 1e-6:
        raise BadLandmarks(
            what, expected="five different points", found="five points in one place", cure="detect the face again"
        )
    if _first_four_are_eye_corners(face):
        raise BadLandmarks(
            what,
            expected="landmarks5: " + ORDER,
            found="four eye corners and the base of the nose, the five points of dlib",
            cure="use dlib's 68-point predictor and landmarks5_from_68, or another detector: "
            "aligning by eye corners shifts every crop",
        )
    eyes, mouth = face[1] - face[0], face[4] - face[3]
    down = (face[3] + face[4] - face[0] - face[1]) / 2
    crossed = float(eyes[0] * down[1] - eyes[1] * down[0]) / spread
    if crossed < _CROSSED or float(eyes @ mouth) / spread < _CROSSED:
        raise BadLandmarks(
            what,
            expected="the order " + ORDER,
            found="eyes or mouth corners with left and right exchanged",
            cure="put the points in that order; left and right are those of the image, not of the person",
        )


def _first_four_are_eye_corners(face: Tensor) -> bool:
    """Whether points 0..3 stand in a row with the fifth well beside it, as eye corners and nose base do."""
    row = face[:4] - face[:4].mean(0)
    direction = torch.linalg.svd(row).Vh[0]
    normal = torch.stack([-direction[1], direction[0]])
    along = row @ direction
    length = float(along.max() - along.min())
    off = float((row @ normal).square().mean().sqrt())
    fifth = abs(float((face[4] - face[:4].mean(0)) @ normal))
    return length > 0 and off <= _ROW * length and fifth >= _OFF_ROW * length


def landmarks5_from_68(points: Tensor) -> Tensor:
    """Return landmarks5 (..., 5, 2) of 68 points (..., 68, 2) in the iBUG order.

    Eye centres are the means of points 36..41 and 42..47; nose tip, mouth corners are 30, 48, 54 (facefusion,
    face_helper.py, convert_to_face_landmark_5).
    """
    if points.shape[-2:] != (68, 2):
        raise BadLandmarks(
            "68 landmarks",
            expected="points (..., 68, 2)",
            found=f"a tensor of shape {tuple(points.shape)}",
            cure="give the 68 points of the iBUG order",
        )
    left, right = points[..., 36:42, :].mean(-2), points[..., 42:48, :].mean(-2)
    return torch.stack([left, right, points[..., 30, :], points[..., 48, :], points[..., 54, :]], dim=-2)


def landmarks5_from_boxes(boxes: Tensor) -> Tensor:
    """Return approximate landmarks5 (N, 5, 2) of upright frontal faces that fill boxes (N, 4).

    A mean face, good to about a tenth of the box: enough for a preview or a first crop, not for an embedding.
    """
    mean = boxes.new_tensor(_MEAN_IN_BOX)
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, None, :2] + mean[None] * sides[:, None]


def face_angle(points68: Tensor) -> int:
    """Return the roll of a face, 0, 90, 180 or 270 degrees, from the line between the ends of the jaw.

    Args:
        points68: (68, 2) pixels in the iBUG order; points 0 and 16 are read (facefusion, estimate_face_angle).
    """
    jaw = (points68[16] - points68[0]).double()
    degrees = float(torch.rad2deg(torch.atan2(jaw[1], jaw[0]))) % 360
    nearest = min((0, 90, 180, 270, 360), key=lambda angle: abs(angle - degrees))
    return nearest % 360


def scale_about_nose(landmarks5: Tensor, factor: float) -> Tensor:
    """Return landmarks5 (..., 5, 2) stretched about the nose tip (facefusion, scale_face_landmark_5)."""
    nose = landmarks5[..., 2:3, :]
    return nose + (landmarks5 - nose) * factor
