"""ConvNeXt as SegFace cuts it, under torchvision's names: features under ``0``, taps before the final norm.

Paper: Liu et al. 2022, "A ConvNet for the 2020s"; epsilon and layout as in torchvision (BSD-3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .taps import Taps

EPS = 1e-6
TAPS = (1, 3, 5, 7)


class _NormOfChannels(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        last = functional.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class _Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class _Block(nn.Module):
    """Depthwise 7 x 7, norm, two linear layers; scaled per channel and added: (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            _Permute(0, 2, 3, 1),
            nn.LayerNorm(width, eps=EPS),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            _Permute(0, 3, 1, 2),
        )
        self.layer_scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale * self.block(x)


def convnext(stem: int, depths: Sequence[int]) -> nn.Sequential:
    """The backbone.

    Args:
        stem: channels of the first tap; each further one has twice as many.
        depths: blocks of each of the four stages.
    """
    layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, stem, 4, 4), _NormOfChannels(stem, eps=EPS))]
    for number, depth in enumerate(depths):
        width = stem << number
        if number:
            halving = nn.Conv2d(width // 2, width, 2, 2)
            layers.append(nn.Sequential(_NormOfChannels(width // 2, eps=EPS), halving))
        layers.append(nn.Sequential(*(_Block(width) for _ in range(depth))))
    return nn.Sequential(Taps(layers, TAPS))
