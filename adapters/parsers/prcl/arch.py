"""DeepLabv3+ with a Gaussian for each place: the network of PRCL (Xie et al., arXiv 2210.14670).

Attribute names are checkpoint keys (the entries ``model`` and ``uncer_head`` of the official file). Its authors
published no weights and it was made for street and object scenes, so no loader offers it: it stands here for the
uncertainty head and the proof that `adapters.precision` computes what its authors compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers.bottleneck import EXPANSION, Bottleneck

DEPTHS = (3, 4, 23, 3)
RATES = (6, 12, 18)
_STEM, _WIDTH, _LOW = 64, 256, 48


@dataclass(frozen=True)
class Maps:
    """What the network says at stride 4.

    Attributes:
        logits: (B, K, h, w).
        representation: (B, D, h, w) mean of each place's Gaussian.
        features: (B, 304, h, w) from which `UncertaintyHead` reads the variance.
    """

    logits: Tensor
    representation: Tensor
    features: Tensor


class UncertaintyHead(nn.Module):
    """(B, C, h, w) features -> (B, D, h, w) variances in 0..1, which the official code calls sigma."""

    def __init__(self, channels: int = _WIDTH + _LOW, width: int = _WIDTH) -> None:
        super().__init__()
        self.fc1 = nn.Parameter(torch.empty(width, channels))
        self.fc2 = nn.Parameter(torch.empty(width, width))
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width, affine=False)
        self.gamma = nn.Parameter(torch.full((1,), 1e-4))
        self.beta = nn.Parameter(torch.full((1,), -7.0))
        nn.init.kaiming_normal_(self.fc1)
        nn.init.kaiming_normal_(self.fc2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h, w)."""
        x = functional.relu(self.bn1(_unit_rows(features, self.fc1)))
        x = self.gamma * self.bn2(_unit_rows(x, self.fc2)) + self.beta
        return (x.exp() + 1e-6).log().sigmoid()


def _unit_rows(x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, functional.normalize(weight)[:, :, None, None])


class _SpatialPyramid(nn.Module):
    """(B, 2048, h, w) -> (B, 256, h, w) by convolutions of several reaches and the mean of the whole picture."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reaches = [_conv(channels, _WIDTH, 1), *(_conv(channels, _WIDTH, 3, rate) for rate in RATES)]
        whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_conv(channels, _WIDTH, 1))
        self.convs = nn.ModuleList([*reaches, whole])
        self.project = _conv(_WIDTH * len(self.convs), _WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        seen = [functional.interpolate(conv(x), size, mode="bilinear", align_corners=False) for conv in self.convs]
        return self.project(torch.cat(seen, dim=1))


class UncertainDeepLab(nn.Module):
    """(B, 3, H, W) normalised pictures -> `Maps`; ResNet-101 with output stride 16."""

    def __init__(self, classes: int, width: int = _WIDTH) -> None:
        super().__init__()
        self.resnet_conv1 = nn.Conv2d(3, _STEM, 7, 2, 3, bias=False)
        self.resnet_bn1 = nn.BatchNorm2d(_STEM)
        self.resnet_layer1 = _stage(_STEM, _STEM, DEPTHS[0])
        self.resnet_layer2 = _stage(4 * _STEM, 2 * _STEM, DEPTHS[1], stride=2)
        self.resnet_layer3 = _stage(8 * _STEM, 4 * _STEM, DEPTHS[2], stride=2)
        self.resnet_layer4 = _stage(16 * _STEM, 8 * _STEM, DEPTHS[3], dilation=2)
        self.ASPP = _SpatialPyramid(32 * _STEM)
        self.project = _conv(EXPANSION * _STEM, _LOW, 1)
        self.classifier = nn.Sequential(*_conv(_LOW + _WIDTH, _WIDTH, 3), nn.Conv2d(_WIDTH, classes, 1))
        self.representation = nn.Sequential(*_conv(_LOW + _WIDTH, _WIDTH, 3), nn.Conv2d(_WIDTH, width, 1))

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, H, W) -> maps at a quarter of the size."""
        x = functional.relu(self.resnet_bn1(self.resnet_conv1(images)))
        low = self.resnet_layer1(functional.max_pool2d(x, 3, 2, 1))
        deep = self.ASPP(self.resnet_layer4(self.resnet_layer3(self.resnet_layer2(low))))
        low = self.project(low)
        deep = functional.interpolate(deep, low.shape[-2:], mode="bilinear", align_corners=True)
        features = torch.cat([low, deep], dim=1)
        return Maps(self.classifier(features), self.representation(features), features)


def _conv(width_in: int, width: int, kernel: int, rate: int = 1) -> nn.Sequential:
    reach = rate * (kernel // 2)
    layer = nn.Conv2d(width_in, width, kernel, 1, reach, rate, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())


def _stage(width_in: int, width: int, depth: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    # As torchvision does it, the first block of a dilated stage still has the dilation of the stage before.
    first = Bottleneck(width_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1, dilation) for _ in range(depth - 1)))
