"""Aligned face crops: the similarity transform from landmarks5 to a template, and the warp through it.

One least-squares similarity (Umeyama 1991, without reflection) serves insightface, facefusion and FACT; robust
estimators that throw landmarks away tilt profiles and are left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import BadLandmarks
from .templates import template_points
from .warp import Padding, chunks, compose, invert, transform_points, warp

__all__ = [
    "Padding",
    "align_matrix",
    "box_matrix",
    "centre_matrix",
    "compose",
    "crop_faces",
    "invert",
    "rotation",
    "template_points",
    "transform_points",
    "umeyama",
    "warp",
]


def umeyama(source: Tensor, target: Tensor) -> Tensor:
    """Return the similarities (B, 2, 3) that carry points (B, P, 2) to their targets with the least squared error.

    Rotation, one scale and translation, never a reflection; computed in float64 on the CPU, returned in the dtype and
    on the device of ``source``. In the plane, points are complex numbers and the solution is one quotient.

    Raises:
        BadLandmarks: all points of a set coincide.
    """
    p, q = source.detach().cpu().double(), target.detach().cpu().double().expand(source.shape)
    p_mean, q_mean = p.mean(-2), q.mean(-2)
    p, q = p - p_mean.unsqueeze(-2), q - q_mean.unsqueeze(-2)
    spread = p.square().sum((-1, -2))
    if not bool((spread > 0).all()):
        raise BadLandmarks(
            "alignment", expected="different points", found="points in one place", cure="detect the face again"
        )
    a = (p * q).sum((-1, -2)) / spread
    b = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1) / spread
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], -2)
    shift = q_mean.unsqueeze(-1) - linear @ p_mean.unsqueeze(-1)
    return torch.cat([linear, shift], dim=-1).to(source.device, source.dtype)


def align_matrix(landmarks5: Tensor, template: str, size: int) -> Tensor:
    """Return the matrices (B, 2, 3) from picture to an aligned crop of ``size`` pixels.

    Args:
        landmarks5: (B, 5, 2) pixels.
        template: a name of `faces.templates`.
        size: side of the crop; ``"arcface"`` needs a multiple of 112 or 128.
    """
    return umeyama(landmarks5, template_points(template, size))


def crop_faces(
    images: Tensor, index: Tensor, landmarks5: Tensor, template: str, size: int, padding: Padding = "zeros"
) -> Tensor:
    """Return aligned crops (N, 3, size, size) of N faces.

    Args:
        images: (B, H, W, 3), 0..1.
        index: (N,) number of the picture of each face.
        landmarks5: (N, 5, 2) pixels.
        template: a name of `faces.templates`.
        size: side of the crops.
        padding: see `warp`.
    """
    matrices = align_matrix(landmarks5, template, size)
    planes = images.movedim(-1, 1)
    index = index.to(images.device)
    each = images[:1].numel() + images.shape[-1] * size * size
    crops = [
        warp(planes.index_select(0, index[part]), matrices[part], size, padding) for part in chunks(len(index), each)
    ]
    return torch.cat(crops) if crops else images.new_zeros(0, images.shape[-1], size, size)


def box_matrix(boxes: Tensor, size: int) -> Tensor:
    """Return the matrices (B, 2, 3) that stretch boxes (B, 4) over a square crop (facefusion, by bounding box)."""
    scales = size / (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([torch.diag_embed(scales), (-boxes[:, :2] * scales)[..., None]], dim=-1)


def centre_matrix(centre: tuple[float, float], size: int, scale: float, degrees: float = 0.0) -> Tensor:
    """Return the matrix (2, 3) float64 that scales about and turns around ``centre`` and puts it in the crop's middle.

    The crop of insightface's landmark, age and gender networks (face_align.py, transform).
    """
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    x, y = centre
    half = size / 2
    return torch.tensor([[a, -b, half - a * x + b * y], [b, a, half - b * x - a * y]], dtype=torch.float64)


def rotation(degrees: float, width: int, height: int) -> tuple[Tensor, tuple[int, int]]:
    """Return the matrix (2, 3) float64 that turns a picture anticlockwise, and the (width, height) that holds it all.

    For detection at 90, 180 and 270 degrees (facefusion, create_rotation_matrix_and_size).
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    wide = abs(cosine) * width + abs(sine) * height
    high = abs(sine) * width + abs(cosine) * height
    x = wide / 2 - cosine * width / 2 - sine * height / 2
    y = high / 2 + sine * width / 2 - cosine * height / 2
    matrix = torch.tensor([[cosine, sine, x], [-sine, cosine, y]], dtype=torch.float64)
    return matrix, (int(wide), int(high))
