"""How far each face of a picture can be trusted for telling who it is, without a network.

Four factors between 0 and 1 are multiplied: the detector's score, the size against the crop that encoders take, the
sharpness (variance of the Laplacian, Pech-Pacheco et al. 2000), and how frontal the head is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .align import align_matrix, transform_points
from .types import FaceBatch
from .warp import warp

TEMPLATE = "arcface"
SIZE = 112
# Variance of the Laplacian, in squared grey levels of an aligned crop, at which sharpness counts half.
HALF_SHARP = 60.0


@dataclass(frozen=True)
class FaceQuality:
    """The factors of one face, each 0..1, and the picture it is in."""

    image: int
    score: float
    size: float
    sharpness: float
    frontality: float

    @property
    def total(self) -> float:
        """The product of the factors."""
        return self.score * self.size * self.sharpness * self.frontality


def face_qualities(images: Tensor, batch: FaceBatch) -> list[FaceQuality]:
    """The quality of every face, picture by picture.

    Args:
        images: (B, H, W, 3), 0..1, in which the faces were found.
        batch: the faces.
    """
    found = []
    for number, faces in enumerate(batch.images):
        if not len(faces):
            continue
        matrices = align_matrix(faces.landmarks5, TEMPLATE, SIZE)
        planes = images[number].movedim(-1, 0).unsqueeze(0).expand(len(faces), -1, -1, -1)
        sharp = _sharpness(warp(planes, matrices, SIZE, "border"))
        frontal = _frontality(transform_points(faces.landmarks5, matrices))
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).amin(dim=1)
        sizes = (sides / SIZE).clamp(0, 1)
        rows = zip(faces.scores.clamp(0, 1).tolist(), sizes.tolist(), sharp.tolist(), frontal.tolist(), strict=True)
        found += [FaceQuality(number, *row) for row in rows]
    return found


def quality_table(qualities: list[FaceQuality]) -> str:
    """One line for each face."""
    lines = [
        f"face {number} (image {one.image}): {one.total:.3f} = score {one.score:.2f} x size {one.size:.2f} "
        f"x sharpness {one.sharpness:.2f} x frontality {one.frontality:.2f}"
        for number, one in enumerate(qualities)
    ]
    return "\n".join(lines) or "no face"


def _sharpness(crops: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=crops.dtype, device=crops.device)
    grey = crops.mean(dim=1, keepdim=True) * 255
    variance = functional.conv2d(grey, kernel[None, None]).flatten(1).var(dim=1)
    return variance / (variance + HALF_SHARP)


def _frontality(landmarks5: Tensor) -> Tensor:
    """1 where the nose stands in the middle between the eyes, 0 where it reaches one of them; (F,)."""
    x = landmarks5[..., 0]
    left, right = x[:, 2] - x[:, 0], x[:, 1] - x[:, 2]
    return (1 - (left - right).abs() / (left + right).abs().clamp(min=1e-6)).clamp(0, 1)
