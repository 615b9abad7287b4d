"""Encoder4Editing (Tov et al. 2021, arXiv:2102.02766): fifty residual layers, a feature pyramid, eighteen style heads.

Attribute names are the checkpoint's key names: ``input_layer body styles latlayer1 latlayer2``. Follows
``psp_encoders.py`` and ``helpers.py`` of encoder4editing. Quirks the checkpoint depends on: up-sampling with aligned
corners, leaky slope 0.01 in the style heads, linear weights scaled by ``1 / sqrt(512)`` at run time, and every row but
the first is the first row's code plus its own difference.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 256
STYLES = 18
STYLE_DIM = 512
# (input channels, output channels, units) of each stage; the first unit of a stage halves the resolution.
STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
TAPS = (6, 20, 23)
# Heads below the first number read the coarsest features, below the second the middle ones.
COARSE, MIDDLE = 3, 7
REDUCTION = 16


class SqueezeExcite(nn.Module):
    """Scales channels by what their means say."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(width // REDUCTION, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(functional.relu(self.fc1(means))))


class Bottleneck(nn.Module):
    """One IR-SE unit."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        return self.res_layer(x) + self.shortcut_layer(x)


class ScaledLinear(nn.Module):
    """A linear layer whose weights are scaled when they are used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return functional.linear(x, self.weight * (1 / math.sqrt(self.weight.shape[1])), self.bias)


class StyleHead(nn.Module):
    """Halves a feature map until one pixel is left: one row of the code."""

    def __init__(self, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(size))):
            layers += [nn.Conv2d(STYLE_DIM, STYLE_DIM, 3, 2, padding=1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = ScaledLinear(STYLE_DIM, STYLE_DIM)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 512, size, size) -> (B, 512)."""
        return self.linear(self.convs(x).flatten(1))


class Encoder4Editing(nn.Module):
    """A face of 256 pixels as a W+ code, the mean code not yet added."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        units: list[nn.Module] = []
        for inputs, outputs, count in STAGES:
            units += [Bottleneck(outputs if n else inputs, outputs, 1 if n else 2) for n in range(count)]
        self.body = nn.Sequential(*units)
        sizes = [16 if n < COARSE else 32 if n < MIDDLE else 64 for n in range(STYLES)]
        self.styles = nn.ModuleList(StyleHead(size) for size in sizes)
        self.latlayer1 = nn.Conv2d(256, STYLE_DIM, 1)
        self.latlayer2 = nn.Conv2d(128, STYLE_DIM, 1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, 256, 256) in -1..1 give features (B, 128, 64, 64), (B, 256, 32, 32), (B, 512, 16, 16)."""
        x = self.input_layer(images)
        taps = []
        for number, unit in enumerate(self.body):
            x = unit(x)
            if number in TAPS:
                taps.append(x)
        return taps[0], taps[1], taps[2]

    def codes(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Features give codes (B, 18, 512)."""
        c1, c2, c3 = features
        p2 = _larger(c3, c2) + self.latlayer1(c2)
        p1 = _larger(p2, c1) + self.latlayer2(c1)
        heads = list(self.styles)
        first = heads[0](c3)
        rows = [first]
        for number, head in enumerate(heads[1:], start=1):
            rows.append(first + head(c3 if number < COARSE else p2 if number < MIDDLE else p1))
        return torch.stack(rows, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 256, 256) in -1..1 give codes (B, 18, 512)."""
        return self.codes(self.features(images))


def _larger(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)
