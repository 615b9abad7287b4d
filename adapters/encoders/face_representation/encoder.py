"""Describes faces with the FLR body: square crops about the detector's boxes, no alignment, as in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ....faces import boxes as boxes_ops
from ....faces.align import box_matrix, warp
from ...adapter import module_device_dtype
from ...identity import EMBEDDING
from ..base import NetworkEncoder
from .arch import DEVIATION, IMAGE_SIZE, MEAN, FaceRepresentation

# The training faces were loosely cropped; 30 % about the box comes near to them.
MARGIN = 1.3
_MOST_SAMPLES = 8


class FaceRepresentationEncoder(NetworkEncoder):
    """Feature: ``embedding`` (N, 2048), the pooled body, not normalised."""

    network: FaceRepresentation

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        device, dtype = module_device_dtype(self.network)
        crops = loose_crops(images, index, boxes).to(device, torch.float32)
        mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
        with torch.no_grad():
            features = self.network(((crops - mean) / deviation).to(dtype))
        return {EMBEDDING: features.float().cpu()}


def loose_crops(images: Tensor, index: Sequence[int], boxes: Tensor) -> Tensor:
    """Square crops (N, 3, 224, 224) about boxes (N, 4), 30 % larger than their longer side.

    Large faces are sampled more densely and averaged, so that shrinking them does not alias.

    Args:
        images: (B, H, W, 3), 0..1.
        index: N image numbers.
        boxes: (N, 4) pixels.
    """
    squares = boxes_ops.scale(boxes_ops.square(boxes.float()), MARGIN)
    sides = (squares[:, 2] - squares[:, 0]).clamp(min=1.0)
    squares = torch.cat([squares[:, :2], squares[:, :2] + sides[:, None]], dim=1)
    crops = []
    for number, square, side in zip(index, squares, sides.tolist(), strict=True):
        dense = min(_MOST_SAMPLES, max(1, round(side / IMAGE_SIZE)))
        matrix = box_matrix(square[None], dense * IMAGE_SIZE)
        # Pixel centres are at whole numbers: the crop's edge lies half a pixel outside its first one.
        matrix[..., 2] += 0.5 * matrix[..., [0, 1], [0, 1]] - 0.5
        picture = images[int(number)].movedim(-1, 0)[None]
        crop = warp(picture, matrix, dense * IMAGE_SIZE, padding="border")
        crops.append(functional.avg_pool2d(crop, dense) if dense > 1 else crop)
    return torch.cat(crops) if crops else images.new_zeros(0, 3, IMAGE_SIZE, IMAGE_SIZE)
