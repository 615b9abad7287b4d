"""RetinaFace network: ResNet body, feature pyramid, SSH context modules, three heads. Module names are the file's.

Follows ``cv/face_detection/retinaface`` of ModelScope (Apache-2.0), itself after Pytorch_Retinaface (MIT). Paper: Deng,
Guo, Ververas, Kotsia, Zafeiriou 2020, "RetinaFace: Single-shot Multi-level Face Localisation in the Wild".
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
MIN_SIZES = ((16, 32), (64, 128), (256, 512))
VARIANCES = (0.1, 0.2)
ANCHORS = 2


@dataclass(frozen=True)
class Shape:
    """What a file's shapes tell: width of the stem, blocks of the four layers, channels of the pyramid."""

    stem: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    pyramid: int = 256


class _Bottleneck(nn.Module):
    """ResNet bottleneck, stride in the 3x3 convolution: (B, in, H, W) -> (B, 4 * width, H', W')."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels_in != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class _Body(nn.Module):
    """ResNet up to layer4: (B, 3, H, W) -> features of layer2, layer3, layer4 at strides 8, 16, 32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, shape.stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.stem)
        channels = shape.stem
        for number, count in enumerate(shape.blocks):
            width = shape.stem * 2**number
            blocks: list[nn.Module] = []
            for block in range(count):
                blocks.append(_Bottleneck(channels, width, 2 if number and not block else 1))
                channels = 4 * width
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        levels = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            levels.append(x)
        return levels[1:]


def _conv(channels_in: int, channels_out: int, kernel: int, slope: float | None) -> nn.Sequential:
    """Convolution and norm, then LeakyReLU unless ``slope`` is None."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, 1, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    if slope is not None:
        layers.append(nn.LeakyReLU(slope))
    return nn.Sequential(*layers)


def _slope(channels: int) -> float:
    """Slim networks leak, wide ones (ResNet-50) do not; the official code decides by the width too."""
    return 0.1 if channels <= 64 else 0.0


class _Pyramid(nn.Module):
    """Feature pyramid, coarse to fine by nearest enlargement; three levels of one width."""

    def __init__(self, channels_in: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        slope = _slope(channels)
        self.output1 = _conv(channels_in[0], channels, 1, slope)
        self.output2 = _conv(channels_in[1], channels, 1, slope)
        self.output3 = _conv(channels_in[2], channels, 1, slope)
        self.merge1 = _conv(channels, channels, 3, slope)
        self.merge2 = _conv(channels, channels, 3, slope)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(levels[0]), self.output2(levels[1]), self.output3(levels[2])
        middle = self.merge2(middle + functional.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + functional.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class _Ssh(nn.Module):
    """Single Stage Headless context: 3x3, 5x5 and 7x7 views side by side, (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter, slope = channels // 2, channels // 4, _slope(channels)
        self.conv3X3 = _conv(channels, half, 3, None)
        self.conv5X5_1 = _conv(channels, quarter, 3, slope)
        self.conv5X5_2 = _conv(quarter, quarter, 3, None)
        self.conv7X7_2 = _conv(quarter, quarter, 3, slope)
        self.conv7x7_3 = _conv(quarter, quarter, 3, None)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.conv5X5_1(x)
        views = [self.conv3X3(x), self.conv5X5_2(wide), self.conv7x7_3(self.conv7X7_2(wide))]
        return functional.relu(torch.cat(views, dim=1))


class _Head(nn.Module):
    """One prediction for each anchor: (B, C, H, W) -> (B, H * W * 2, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv1x1 = nn.Conv2d(channels, ANCHORS * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.width)


class RetinaFace(nn.Module):
    """(B, 3, H, W) RGB minus (104, 117, 123) -> shifts (B, P, 4), probabilities (B, P, 2), points (B, P, 10)."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        shape = shape or Shape()
        self.body = _Body(shape)
        self.fpn = _Pyramid((8 * shape.stem, 16 * shape.stem, 32 * shape.stem), shape.pyramid)
        self.ssh1 = _Ssh(shape.pyramid)
        self.ssh2 = _Ssh(shape.pyramid)
        self.ssh3 = _Ssh(shape.pyramid)
        self.ClassHead = nn.ModuleList(_Head(shape.pyramid, 2) for _ in STRIDES)
        self.BboxHead = nn.ModuleList(_Head(shape.pyramid, 4) for _ in STRIDES)
        self.LandmarkHead = nn.ModuleList(_Head(shape.pyramid, 10) for _ in STRIDES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.fpn(self.body(images))
        features = [self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse)]
        boxes, faces, points = (
            torch.cat([head(feature) for head, feature in zip(heads, features, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, faces.softmax(dim=-1), points


def priors(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Anchors (P, 4) ``centre x, centre y, width, height`` in parts of the picture, in the order of the heads."""
    levels = []
    for stride, sizes in zip(STRIDES, MIN_SIZES, strict=True):
        rows = (torch.arange(ceil(height / stride), device=device) + 0.5) * stride / height
        columns = (torch.arange(ceil(width / stride), device=device) + 0.5) * stride / width
        size = torch.tensor([[side / width, side / height] for side in sizes], device=device)
        centre = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
        grid = centre[:, :, None].expand(-1, -1, ANCHORS, -1)
        levels.append(torch.cat([grid, size.expand_as(grid)], dim=-1).reshape(-1, 4))
    return torch.cat(levels)


def decode_boxes(shifts: Tensor, anchors: Tensor) -> Tensor:
    """Shifts (..., P, 4) -> ``x1 y1 x2 y2`` in parts of the picture."""
    centre = anchors[:, :2] + shifts[..., :2] * VARIANCES[0] * anchors[:, 2:]
    size = anchors[:, 2:] * torch.exp(shifts[..., 2:] * VARIANCES[1])
    low = centre - size / 2
    return torch.cat([low, low + size], dim=-1)


def decode_points(shifts: Tensor, anchors: Tensor) -> Tensor:
    """Shifts (..., P, 10) -> five points (..., P, 5, 2) in parts of the picture."""
    pairs = shifts.unflatten(-1, (5, 2))
    return anchors[:, None, :2] + pairs * VARIANCES[0] * anchors[:, None, 2:]
