"""Noise as a camera makes it: the picture goes back to the sensor, gets noise there, and is developed again.

The model of CBDNet (Guo et al. 2019, arXiv:1807.04686): inverse response, camera colours, inverse white balance, Bayer
mosaic, noise of variance ``shot * x + read``, and the same way back. Three parts are this project's own choice: the
response is a power curve of random exponent instead of a table of measured curves; the camera matrix is a random mean
of the four that Brooks et al. 2019 (arXiv:1811.11127) list; and demosaicing is that of Malvar, He and Cutler 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .seeds import generator_for, pick, uniform

# XYZ to camera, of four cameras.
_CAMERAS = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.613, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.838, -0.263, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.097, 0.1581, 0.5181)),
)
# Linear sRGB to XYZ (IEC 61966-2-1).
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
# Malvar, He and Cutler, figure 2, times 16.
_GREEN = ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0))
_ROW = ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0))
_OPPOSITE = ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0))


@dataclass(frozen=True)
class CameraNoise:
    """One camera and its noise.

    Attributes:
        seed: of the noise.
        shot, read: variance of the noise is ``shot * x + read`` at sensor value x in 0..1.
        exponent: linear light is ``value ** exponent``.
        weights: share of each of the four cameras.
        red, blue: inverse white balance gains.
        phase: row and column (0 or 1) of the first red site.
    """

    seed: int
    shot: float
    read: float
    exponent: float
    weights: tuple[float, float, float, float]
    red: float
    blue: float
    phase: tuple[int, int]

    def apply(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 with noise, in 0..1."""
        matrix = camera_matrix(self.weights).to(images)
        gains = images.new_tensor([self.red, 1.0, self.blue])[:, None, None]
        sensor = _mixed(images.clamp(0, 1) ** self.exponent, matrix).clamp(0, 1) * gains
        raw = mosaic(sensor, self.phase)
        noise = torch.randn(raw.shape, generator=generator_for("camera", self.seed)).to(raw)
        raw = raw + (self.shot * raw + self.read).sqrt() * noise
        linear = _mixed(demosaic(raw, self.phase) / gains, torch.linalg.inv(matrix))
        return linear.clamp(0, 1) ** (1 / self.exponent)

    @property
    def text(self) -> str:
        """In words."""
        return f"camera noise {255 * (self.shot / 2 + self.read) ** 0.5:.1f}/255"


def draw_camera(generator: torch.Generator, strength: float) -> CameraNoise:
    """A random camera; ``strength`` is a factor of the noise's deviation."""
    shares = [uniform(generator, 1e-3, 1) for _ in range(4)]
    total = sum(shares)
    return CameraNoise(
        seed=int(uniform(generator, 0, 2**40)),
        shot=strength**2 * uniform(generator, 5e-5, 5e-4),
        read=strength**2 * uniform(generator, 5e-6, 5e-5),
        exponent=uniform(generator, 1.8, 2.6),
        weights=(shares[0] / total, shares[1] / total, shares[2] / total, shares[3] / total),
        red=uniform(generator, 0.75, 1),
        blue=uniform(generator, 0.75, 1),
        phase=(pick(generator, (1, 1)), pick(generator, (1, 1))),
    )


def camera_matrix(weights: tuple[float, ...]) -> Tensor:
    """Linear sRGB to camera (3, 3) float32; rows sum to 1, so that grey stays grey."""
    cameras = torch.tensor(_CAMERAS, dtype=torch.float64)
    mean = (cameras * torch.tensor(weights, dtype=torch.float64)[:, None, None]).sum(dim=0)
    matrix = mean @ torch.tensor(_XYZ, dtype=torch.float64)
    return (matrix / matrix.sum(dim=1, keepdim=True)).float()


def mosaic(images: Tensor, phase: tuple[int, int]) -> Tensor:
    """What the sensor keeps of (B, 3, H, W): one colour at each site, (B, 1, H, W)."""
    red, green, blue = sites(images, phase)
    return torch.where(red, images[:, :1], torch.where(blue, images[:, 2:], images[:, 1:2] * green))


def sites(images: Tensor, phase: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Where the red, green and blue sites lie, (H, W) bool each."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) % 2 == phase[0])[:, None]
    columns = (torch.arange(width, device=images.device) % 2 == phase[1])[None]
    return rows & columns, rows ^ columns, ~rows & ~columns


def demosaic(raw: Tensor, phase: tuple[int, int]) -> Tensor:
    """Pictures (B, 3, H, W) of a mosaic (B, 1, H, W)."""
    mode = "reflect" if min(raw.shape[-2:]) > 2 else "replicate"
    row = torch.tensor(_ROW)
    kernels = torch.stack([torch.tensor(_GREEN), row, row.T, torch.tensor(_OPPOSITE)]).to(raw)[:, None] / 16
    green, beside, above, opposite = functional.conv2d(functional.pad(raw, (2, 2, 2, 2), mode=mode), kernels).split(
        1, 1
    )
    at_red, at_green, at_blue = sites(raw, phase)
    in_red_rows = at_green & at_red.any(dim=1, keepdim=True)
    red = torch.where(at_red, raw, torch.where(at_blue, opposite, torch.where(in_red_rows, beside, above)))
    blue = torch.where(at_blue, raw, torch.where(at_red, opposite, torch.where(in_red_rows, above, beside)))
    return torch.cat([red, torch.where(at_green, raw, green), blue], dim=1)


def _mixed(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix, images)
