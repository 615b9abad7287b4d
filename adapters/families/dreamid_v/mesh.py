"""Pose pictures of MediaPipe's face mesh: the target's motion on the source's shape, projected and drawn.

Follows ``express_adaption`` (FaceMeshAlign, projection) and the drawing of ``generate_dreamidv.py`` in
bytedance/DreamID-V. The landmarks themselves come from MediaPipe, which this module does not need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....faces.drawing import fill_circle, fill_convex
from ....faces.errors import BadLandmarks
from . import mesh_points

FIELD_OF_VIEW = 63.0
# Offsets from the centre in the authors' camera (near 1, far 10000) against an ideal pinhole.
PINHOLE = 0.9999
RADIUS = 2
WHITE = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class FaceMeshes:
    """What MediaPipe's FaceLandmarker tells of each of F frames.

    Attributes:
        points: (F, 478, 2 or more), 0..1 of the picture.
        vertices: (F, 468, 3) metric.
        blendshapes: (F, S) without the neutral one.
        transforms: (F, 4, 4) from metric space to the camera's.
    """

    points: Tensor
    vertices: Tensor
    blendshapes: Tensor
    transforms: Tensor

    def __post_init__(self) -> None:
        frames = self.points.shape[0]
        shapes = [tuple(part.shape) for part in (self.points, self.vertices, self.blendshapes, self.transforms)]
        fits = len(shapes[0]) == 3 and shapes[0][1] == mesh_points.MESH + 10 and shapes[0][2] >= 2
        fits = fits and shapes[1:] == [(frames, mesh_points.MESH, 3), (frames, shapes[2][-1]), (frames, 4, 4)]
        if not fits or not frames:
            raise BadLandmarks(
                "face meshes",
                expected="points (F, 478, 2), vertices (F, 468, 3), blendshapes (F, S) and transforms (F, 4, 4)",
                found=", ".join(map(str, shapes)),
                cure="give MediaPipe's FaceLandmarker results of every frame",
            )


def neutral_frame(blendshapes: Tensor) -> int:
    """The frame with the least expression: the smallest sum of blendshapes (F, S)."""
    return int(blendshapes.sum(dim=1).argmin())


def projected(meshes: FaceMeshes, reference: Tensor, height: int, width: int) -> Tensor:
    """Points (F, 478, 2) float32 in pixels: the clip's motion on the shape of ``reference``.

    Args:
        meshes: of the clip.
        reference: vertices (468, 3) of the photo's face.
        height, width: of the clip's frames.
    """
    vertices = meshes.vertices - meshes.vertices[neutral_frame(meshes.blendshapes)] + reference
    points = _pinhole(vertices.double(), meshes.transforms.double(), height, width)
    detected = meshes.points[..., :2].double() * torch.tensor([width, height])
    irises = [
        _mapped(detected[:, list(iris)], detected[:, list(eye)], points[:, list(eye)])
        for iris, eye in (
            (mesh_points.RIGHT_IRIS, mesh_points.RIGHT_EYE),
            (mesh_points.LEFT_IRIS, mesh_points.LEFT_EYE),
        )
    ]
    return torch.cat((points, *irises), dim=1).float()


def _pinhole(vertices: Tensor, transforms: Tensor, height: int, width: int) -> Tensor:
    """(F, V, 3) and (F, 4, 4) to pixels (F, V, 2); the camera looks along -z, y up."""
    seen = vertices @ transforms[:, :3, :3].mT + transforms[:, None, :3, 3]
    focal = PINHOLE * height / 2 / math.tan(math.radians(FIELD_OF_VIEW) / 2)
    depth = -seen[..., 2]
    return torch.stack((width / 2 + focal * seen[..., 0] / depth, height / 2 - focal * seen[..., 1] / depth), dim=-1)


def _mapped(points: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Points (F, P, 2) moved as the box of ``before`` (F, Q, 2) moves to that of ``after``, axis by axis."""
    low, high = before.amin(1, keepdim=True), before.amax(1, keepdim=True)
    new_low, new_high = after.amin(1, keepdim=True), after.amax(1, keepdim=True)
    span = (high - low).clamp(min=1e-9)
    return new_low + (points - low) / span * (new_high - new_low)


def pose_pictures(points: Tensor, height: int, width: int) -> Tensor:
    """White dots on black at the drawn points of (F, 478, 2) pixels: (F, height, width, 3) uint8."""
    pictures = torch.zeros(points.shape[0], height, width, 3, dtype=torch.uint8)
    for picture, face in zip(pictures, _whole(points[:, list(mesh_points.DRAWN)]), strict=True):
        for point in face:
            fill_circle(picture, point, RADIUS, WHITE)
    return pictures


def mask_pictures(points: Tensor, height: int, width: int) -> Tensor:
    """The face ovals of (F, 478, 2) pixels: (F, height, width) uint8, 0 or 255."""
    pictures = torch.zeros(points.shape[0], height, width, 3, dtype=torch.uint8)
    for picture, oval in zip(pictures, _whole(points[:, list(mesh_points.FACE_OVAL)]), strict=True):
        fill_convex(picture, oval, WHITE)
    return pictures[..., 0]


def _whole(points: Tensor) -> list[Sequence[tuple[int, int]]]:
    """Pixels cut off towards zero, as ``int()`` does."""
    return [[(int(x), int(y)) for x, y in face] for face in points.tolist()]
