"""ResNet with bottlenecks as SegFace cuts it, under torchvision's names; the stride lies in the 3 x 3 convolution.

The official feature hook forgets this backbone although its checkpoint is published; its four stages are tapped here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...layers.bottleneck import EXPANSION, Bottleneck
from .taps import Taps

TAPS = (4, 5, 6, 7)


def resnet(stem: int, depths: Sequence[int]) -> Taps:
    """The backbone.

    Args:
        stem: channels after the first convolution; the taps have 4, 8, 16 and 32 times as many.
        depths: blocks of each stage.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(3, stem, 7, 2, 3, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    width_in = stem
    for number, depth in enumerate(depths):
        width = stem << number
        blocks = []
        for block in range(depth):
            blocks.append(Bottleneck(width_in, width, 2 if number and not block else 1))
            width_in = width * EXPANSION
        layers.append(nn.Sequential(*blocks))
    return Taps(layers, TAPS)
