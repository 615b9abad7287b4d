"""The bottleneck block of ResNet-50 and larger, under torchvision's names; the stride lies in the 3 x 3 convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4


class Bottleneck(nn.Module):
    """(B, in, H, W) -> (B, 4 width, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        """A block.

        Args:
            width_in: channels that come in.
            width: channels of the 3 x 3 convolution.
            stride: of that convolution.
            dilation: of that convolution.
        """
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width_in != out:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, 4 width, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)
