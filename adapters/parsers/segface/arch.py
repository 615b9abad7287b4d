"""SegFace: backbone, fusion of four scales, place code and decoder. Module names are the checkpoint's.

Follows the official repository (Kartik-3004/SegFace, MIT). Paper: Narayan et al. 2025, "SegFace: Face Segmentation of
Long-Tail Classes" (AAAI).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .convnext import convnext
from .decoder import FaceDecoder
from .efficientnet import efficientnet
from .labels import Label
from .mobilenet import mobilenet
from .resnet import resnet
from .swin import swin

Backbone = Literal["swin", "swin_v2", "convnext", "resnet", "mobilenet", "efficientnet"]


@dataclass(frozen=True)
class Shape:
    """What a file's shapes tell.

    Attributes:
        backbone: its kind.
        widths: channels of the four taps.
        depths: blocks of the four stages; empty where the kind fixes them.
        window: side of a window, for Swin.
        dim: width of the decoder.
        inside: width of the decoder's linear layers.
        depth: blocks of the decoder.
    """

    backbone: Backbone
    widths: tuple[int, ...]
    depths: tuple[int, ...] = ()
    window: int = 0
    dim: int = 256
    inside: int = 2048
    depth: int = 2


class _Projection(nn.Module):
    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H, W)."""
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PlaceCode(nn.Module):
    """Sines and cosines of places by a random matrix, which was drawn in training and stands in the file."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, dim // 2))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, height: int, width: int) -> Tensor:
        """(dim, height, width), computed in float32."""
        matrix = self.positional_encoding_gaussian_matrix.float()
        x = (torch.arange(width, device=matrix.device) + 0.5) / width
        y = (torch.arange(height, device=matrix.device) + 0.5) / height
        centred = 2 * torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) - 1
        angles = 2 * math.pi * (centred @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1)


class SegFace(nn.Module):
    """(B, 3, H, W), normalised as for ImageNet, sides that 32 divides -> logits (B, N, H, W).

    Args:
        shape: sizes.
        labels: the output channels in order.
    """

    def __init__(self, shape: Shape, labels: tuple[Label, ...]) -> None:
        super().__init__()
        self.backbone = _backbone(shape)
        self.pe_layer = PlaceCode(shape.dim)
        self.face_decoder = FaceDecoder(labels, shape.dim, shape.inside, shape.depth)
        self.linear_c = nn.ModuleList(_Projection(width, shape.dim) for width in shape.widths)
        self.linear_fuse = nn.Conv2d(len(shape.widths) * shape.dim, shape.dim, 1, bias=False)

    def fused(self, taps: Sequence[Tensor]) -> Tensor:
        """Four maps, finest first -> (B, dim, H / 4, W / 4)."""
        size = taps[0].shape[2:]
        maps = [linear(tap) for linear, tap in zip(self.linear_c, taps, strict=True)]
        maps = [functional.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in maps]
        return self.linear_fuse(torch.cat(maps[::-1], dim=1))

    def decoded(self, features: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, N, 4 h, 4 w)."""
        return self.face_decoder(features, self.pe_layer(*features.shape[2:]).to(features))

    def forward(self, images: Tensor) -> Tensor:
        """Parse."""
        return self.decoded(self.fused(self.backbone(images)))


def _backbone(shape: Shape) -> nn.Module:
    if shape.backbone in ("swin", "swin_v2"):
        return swin(shape.widths[0], shape.depths, shape.window, shape.backbone == "swin_v2")
    if shape.backbone == "convnext":
        return convnext(shape.widths[0], shape.depths)
    if shape.backbone == "resnet":
        return resnet(shape.widths[0] // 4, shape.depths)
    return mobilenet() if shape.backbone == "mobilenet" else efficientnet()
