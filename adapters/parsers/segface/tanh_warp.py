"""The warp around SegFace's LaPa network: the face upright in the middle, the rest of the picture pressed to the rim.

After Lin et al. 2019, "Face Parsing with RoI Tanh-Warping", as SegFace's file of the LaPa model has it. Its half-pixel
slips (whole pixel coordinates sampled without aligned corners, a target of R - 1) belong to the trained network.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.align import umeyama

# The mean face of a square of 512.
POINTS = ((196.0, 226.0), (316.0, 226.0), (256.0, 286.0), (220.0, 360.4), (292.0, 360.4))
INNER = 0.2
_LARGEST = 0.999


class TanhWarp:
    """The way into the warped square and back for B faces.

    Args:
        landmarks5: (B, 5, 2) in pixels of the square picture that the network is given.
        size: side of that picture.
    """

    def __init__(self, landmarks5: Tensor, size: int) -> None:
        self.size = size
        target = torch.tensor(POINTS, dtype=torch.float64) / 256 * (size - 1) / 2
        self.matrices = umeyama(landmarks5.detach().cpu().double(), target)

    def warp(self, images: Tensor) -> Tensor:
        """(B, C, R, R) pictures as the network sees them."""
        return _sampled(images, self._inverse(_pixels(self.size)), self.size)

    def unwarp(self, logits: Tensor) -> Tensor:
        """(B, C, R, R) maps back in the picture."""
        return _sampled(logits, self._forward(_pixels(self.size)), self.size)

    def _forward(self, points: Tensor) -> Tensor:
        """(P, 2) -> (B, P, 2)."""
        centred = (points @ self.matrices[..., :2].mT + self.matrices[:, None, :, 2]) / self.size * 2 - 1
        beyond = (centred.abs() - INNER).clamp(min=0)
        pressed = (1 - INNER) * torch.tanh(beyond / (1 - INNER))
        return (centred - centred.sign() * (beyond - pressed) + 1) / 2 * self.size

    def _inverse(self, points: Tensor) -> Tensor:
        """(P, 2) -> (B, P, 2)."""
        centred = points / self.size * 2 - 1
        beyond = (centred.abs() - INNER).clamp(min=0)
        stretched = (1 - INNER) * torch.atanh((beyond / (1 - INNER)).clamp(max=_LARGEST))
        free = (centred + centred.sign() * (stretched - beyond) + 1) / 2 * self.size
        back = torch.linalg.inv(self.matrices[..., :2])
        return (free - self.matrices[:, None, :, 2]) @ back.mT


def _pixels(size: int) -> Tensor:
    """(R R, 2) x and y of every pixel, row by row."""
    side = torch.arange(size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)


def _sampled(images: Tensor, points: Tensor, size: int) -> Tensor:
    grid = (points / size * 2 - 1).reshape(-1, size, size, 2).to(images.device, images.dtype)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
