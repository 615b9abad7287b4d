"""The StyleGAN2 generator (Karras et al. 2020, arXiv:1912.04958) that turns a W+ code back into a face.

Attribute names are the key names of rosinality's ``model.py``, which e4e's files carry under ``decoder.``: ``input
conv1 to_rgb1 convs to_rgbs noises``. The noises are those stored in the file, so that one code always gives
one picture. The blur kernels are used as stored. The mapping network (``style.``) is left out: W+ codes lie behind it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .arch import STYLE_DIM, ScaledLinear

# Channels at each resolution, 4 to 1024 pixels (channel multiplier 2).
CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64, 32)
TAPS = 4


class Constant(nn.Module):
    """The learned 4 x 4 picture that everything grows from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.zeros(1, width, 4, 4))


class Kernel(nn.Module):
    """A stored blur kernel (4, 4)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.zeros(TAPS, TAPS))

    def blur(self, x: Tensor, before: int, after: int) -> Tensor:
        """Convolve every channel of (B, C, H, W), padded with zeros by ``before`` and ``after`` pixels."""
        channels = x.shape[1]
        weight = self.kernel.flip(0, 1).expand(channels, 1, TAPS, TAPS)
        return functional.conv2d(functional.pad(x, (before, after, before, after)), weight, groups=channels)

    def enlarge(self, x: Tensor) -> Tensor:
        """Twice the size: zeros between the pixels, then blur."""
        batch, channels, height, width = x.shape
        spread = x.new_zeros(batch, channels, height, 2, width, 2)
        spread[:, :, :, 0, :, 0] = x
        return self.blur(spread.view(batch, channels, 2 * height, 2 * width), 2, 1)


class ModulatedConv(nn.Module):
    """A convolution whose input channels a row of the code scales; its output channels are brought to unit size."""

    def __init__(self, inputs: int, outputs: int, side: int, up: bool = False, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, outputs, inputs, side, side))
        self.modulation = ScaledLinear(STYLE_DIM, inputs)
        self.up, self.demodulate = up, demodulate
        if up:
            self.blur = Kernel()

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """(B, inputs, H, W) and a row (B, 512) give (B, outputs, H or 2 H, W or 2 W)."""
        weight = self.weight[0] / math.sqrt(self.weight[0, 0].numel())
        style = self.modulation(row)
        x = x * style[:, :, None, None]
        if self.up:
            x = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            x = functional.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            energy = style.square() @ weight.square().sum(dim=(2, 3)).T
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None]
        return self.blur.blur(x, 1, 1) if self.up else x


class NoiseWeight(nn.Module):
    """How much noise is added."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class Activation(nn.Module):
    """Bias and leaky ReLU, brought back to unit size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return functional.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2)


class StyledConv(nn.Module):
    """Convolution, noise, activation."""

    def __init__(self, inputs: int, outputs: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, up)
        self.noise = NoiseWeight()
        self.activate = Activation(outputs)

    def forward(self, x: Tensor, row: Tensor, noise: Tensor) -> Tensor:
        """(B, inputs, H, W), a row (B, 512) and noise (1, 1, H', W') give (B, outputs, H', W')."""
        return self.activate(self.conv(x, row) + self.noise.weight * noise)


class ToRGB(nn.Module):
    """Colours of one resolution, added to those of the resolution below."""

    def __init__(self, inputs: int, up: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.conv = ModulatedConv(inputs, 3, 1, demodulate=False)
        if up:
            self.upsample = Kernel()

    def forward(self, x: Tensor, row: Tensor, below: Tensor | None) -> Tensor:
        """(B, inputs, H, W) and a row (B, 512) give (B, 3, H, W)."""
        colours = self.conv(x, row) + self.bias
        return colours if below is None else colours + self.upsample.enlarge(below)


class Noises(nn.Module):
    """The stored noises, two for each resolution above the first."""

    def __init__(self, count: int) -> None:
        super().__init__()
        for number in range(count):
            side = 4 * 2 ** ((number + 1) // 2)
            self.register_buffer(f"noise_{number}", torch.zeros(1, 1, side, side))


class Generator(nn.Module):
    """A W+ code as a face of 1024 pixels.

    Args:
        channels: channels at each resolution from 4 pixels on.
    """

    def __init__(self, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        self.input = Constant(channels[0])
        self.conv1 = StyledConv(channels[0], channels[0])
        self.to_rgb1 = ToRGB(channels[0], up=False)
        pairs = list(zip(channels, channels[1:], strict=False))
        convs = [[StyledConv(low, high, up=True), StyledConv(high, high)] for low, high in pairs]
        self.convs = nn.ModuleList(conv for pair in convs for conv in pair)
        self.to_rgbs = nn.ModuleList(ToRGB(high, up=True) for _, high in pairs)
        self.noises = Noises(2 * len(pairs) + 1)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, rows, 512) give pictures (B, 3, S, S), about -1..1; rows = 2 x resolutions."""
        x = self.input.input.expand(codes.shape[0], -1, -1, -1)
        x = self.conv1(x, codes[:, 0], self._noise(0))
        colours = self.to_rgb1(x, codes[:, 1], None)
        for level, to_rgb in enumerate(self.to_rgbs):
            first = 2 * level + 1
            for step in (0, 1):
                x = self.convs[2 * level + step](x, codes[:, first + step], self._noise(first + step))
            colours = to_rgb(x, codes[:, first + 2], colours)
        return colours

    def _noise(self, number: int) -> Tensor:
        return self.noises.get_buffer(f"noise_{number}")
