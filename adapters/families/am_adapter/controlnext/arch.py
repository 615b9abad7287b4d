"""ControlNeXt (Peng et al. 2024, arXiv:2408.06070): a control picture and the time become one feature map.

Attribute names are the checkpoint's key names. Follows ``src/models/controlnext.py`` of AM-Adapter. The residual blocks
are diffusers' ResnetBlock2D (norms with epsilon 1e-6); the plain norms have 1e-5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

TIME_WIDTH = 128
_RESNET_EPS = 1e-6
_INJECTION_EPS = 1e-12


class TimeEmbedding(nn.Module):
    """Two linear layers over the sinusoidal embedding of the time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_WIDTH, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 128) -> (B, width)."""
        return self.linear_2(functional.silu(self.linear_1(x)))


class ResidualBlock(nn.Module):
    """Two convolutions with the time added between them."""

    def __init__(self, inputs: int, outputs: int, groups: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, _RESNET_EPS)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, _RESNET_EPS)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B or 1, time width) -> (B, outputs, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Downsample(nn.Module):
    """A convolution of stride 2 under the name ``conv``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return self.conv(x)


class ControlNeXt(nn.Module):
    """The whole network.

    Args:
        output: channels of the feature map, those of the UNet's first level.
    """

    def __init__(self, output: int = 320) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(256)
        self.embedding = nn.Sequential(
            *_conv_norm(3, 64, 2, stride=2), *_conv_norm(64, 64, 2, stride=1), *_conv_norm(64, 128, 2, stride=1)
        )
        self.down_res = nn.ModuleList([ResidualBlock(128, 128, 4, 256), ResidualBlock(128, 256, 8, 256)])
        self.down_sample = nn.ModuleList([Downsample(128), Downsample(256)])
        middle = nn.Sequential(
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.GroupNorm(8, 256),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.GroupNorm(8, 256),
        )
        self.mid_convs = nn.ModuleList([middle, nn.Conv2d(256, output, 1)])

    def stem(self, picture: Tensor) -> Tensor:
        """The part that does not depend on the time: (B, 3, H, W) of 0..1 -> (B, 128, H / 2, W / 2)."""
        return self.embedding(picture)

    def control(self, features: Tensor, time: Tensor) -> Tensor:
        """The rest: features of `stem` and times (B or 1,) of 0..999 -> (B, 320, H / 8, W / 8)."""
        embedded = self.time_embedding(sinusoidal(time).to(features.dtype))
        x = features
        for block, down in zip(self.down_res, self.down_sample, strict=True):
            x = down(block(x, embedded))
        return self.mid_convs[1](x + self.mid_convs[0](x))

    def forward(self, picture: Tensor, time: Tensor) -> Tensor:
        """(B, 3, H, W) and (B or 1,) -> (B, 320, H / 8, W / 8)."""
        return self.control(self.stem(picture), time)


def sinusoidal(time: Tensor) -> Tensor:
    """(B,) -> (B, 128), cosines first."""
    half = TIME_WIDTH // 2
    # Multiplied first, divided second, as diffusers does: at times of hundreds the rounding of a rate shows.
    rates = torch.exp(-math.log(10000) * torch.arange(half, device=time.device, dtype=torch.float32) / half)
    angles = time.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), 1)


def inject_control(hidden: Tensor, control: Tensor, strength: float) -> Tensor:
    """Add a feature map, brought to the size and the statistics of the hidden state.

    Args:
        hidden: (B, C, H, W) after the UNet's first level, its downsampler included.
        control: (B or 1, C, h, w).
        strength: officially 1.
    """
    control = functional.adaptive_avg_pool2d(control, (hidden.shape[2], hidden.shape[3]))
    std, mean = torch.std_mean(hidden, dim=(1, 2, 3), keepdim=True)
    control_std, control_mean = torch.std_mean(control, dim=(1, 2, 3), keepdim=True)
    scaled = torch.addcmul(mean, control - control_mean, std / (control_std + _INJECTION_EPS))
    return torch.add(hidden, scaled, alpha=strength)


def _conv_norm(inputs: int, outputs: int, groups: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(groups, outputs), nn.ReLU()
