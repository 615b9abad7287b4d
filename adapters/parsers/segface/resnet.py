"""ResNet with bottlenecks as SegFace cuts it, under torchvision's names; the stride lies in the 3 x 3 convolution.

The official feature hook forgets this backbone although its checkpoint is published; its four stages are tapped here.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from .taps import Taps

TAPS = (4, 5, 6, 7)
EXPANSION = 4


class _Bottleneck(nn.Module):
    """(B, in, H, W) -> (B, 4 width, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width_in != out:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


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
            blocks.append(_Bottleneck(width_in, width, 2 if number and not block else 1))
            width_in = width * EXPANSION
        layers.append(nn.Sequential(*blocks))
    return Taps(layers, TAPS)
