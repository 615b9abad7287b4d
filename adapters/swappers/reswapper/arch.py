"""The network of inswapper and ReSwapper (StyleTransferModel_128.py): an encoder, style blocks, a decoder.

Names are those of the published files. Any size that is a multiple of 4 works; published files use 128 and 256.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers.casting import Linear
from ...layers.casting_conv import Conv2d
from .winograd import convolve, kernels_for

LATENT = 512
SLOPE = 0.2
# Of the authors' own instance norm; torch's layer has a larger one by default.
EPSILON = 1e-8
# Bytes of one map that still stay near a CPU while the next layer reads it.
_CACHE = 1 << 22


class StyleBlock(nn.Module):
    """Two convolutions whose outputs are normalised and then scaled and shifted by the identity; residual.

    Args:
        channels: of the features.
        latent: length of the identity's vector.
    """

    def __init__(self, channels: int, latent: int = LATENT) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3)
        self.conv2 = Conv2d(channels, channels, 3)
        self.style1 = Linear(latent, 2 * channels)
        self.style2 = Linear(latent, 2 * channels)

    def forward(self, features: Tensor, latent: Tensor) -> Tensor:
        """(B, C, H, W), (B, latent) -> (B, C, H, W)."""
        inner = functional.relu(_styled(_convolved(self.conv1, features), self.style1(latent)))
        return features + _styled(_convolved(self.conv2, inner), self.style2(latent))


class SwapNetwork(nn.Module):
    """Target face and identity's vector to swapped face, all 0..1.

    Args:
        widths: channels after each of the four convolutions of the encoder.
        blocks: number of style blocks.
        latent: length of the identity's vector.
    """

    def __init__(
        self, widths: tuple[int, int, int, int] = (128, 256, 512, 1024), blocks: int = 6, latent: int = LATENT
    ) -> None:
        super().__init__()
        first, second, third, last = widths
        self.target_encoder = nn.Sequential(
            Conv2d(3, first, 7),
            nn.LeakyReLU(SLOPE),
            Conv2d(first, second, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            Conv2d(second, third, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            Conv2d(third, last, 3, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.style_blocks = nn.ModuleList(StyleBlock(last, latent) for _ in range(blocks))
        self.decoder = nn.Sequential(Conv2d(last, third, 3, padding=1), nn.LeakyReLU(SLOPE))
        self.decoderPart1 = nn.Sequential(
            Conv2d(third, second, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            Conv2d(second, first, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.decoderPart2 = nn.Sequential(Conv2d(first, 3, 7))

    def forward(self, target: Tensor, latent: Tensor) -> Tensor:
        """(B, 3, S, S) 0..1, (B, latent) -> (B, 3, S, S) 0..1."""
        lane = self._lane(target)
        features = torch.cat([self.target_encoder(_mirrored(part, 3)) for part in target.split(lane)])
        for block in self.style_blocks:
            features = block(features, latent)
        height, width = 2 * features.shape[2], 2 * features.shape[3]
        kernels = kernels_for(self.decoder[0], features, height, width)  # type: ignore[arg-type]
        return torch.cat([self._decoded(part, kernels) for part in features.split(lane)])

    def _decoded(self, features: Tensor, kernels: Tensor | None) -> Tensor:
        first, slope = self.decoder
        doubled = functional.pad(_doubled(features), (1,) * 4) if kernels is not None else _doubled(features)
        features = slope(convolve(first, kernels, doubled))  # type: ignore[arg-type]
        features = self.decoderPart1(_doubled(features))
        swapped: Tensor = self.decoderPart2(_mirrored(features, 3))
        return (torch.tanh(swapped) + 1) / 2

    def _lane(self, target: Tensor) -> int:
        """Pictures that go through the large maps together: on a CPU as many as its cache holds."""
        if target.device.type != "cpu":
            return len(target) or 1
        first: Any = self.target_encoder[0]
        channels = int(first.weight.shape[0])
        each = channels * target[:1, 0].numel() * target.element_size()
        return max(1, int(_CACHE // max(1, each)))


def _convolved(layer: Conv2d, features: Tensor) -> Tensor:
    kernels = kernels_for(layer, features, *features.shape[2:])
    return convolve(layer, kernels, _mirrored(features, 1))


def _styled(features: Tensor, style: Tensor) -> Tensor:
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    # Mean and deviation go into scale and shift, so that the features are passed over once instead of four times.
    variance, mean = torch.var_mean(features, (2, 3), unbiased=False, keepdim=True)
    scale = scale * torch.rsqrt(variance + EPSILON)
    return torch.addcmul(shift - mean * scale, features, scale)


def _mirrored(features: Tensor, margin: int) -> Tensor:
    return functional.pad(features, (margin,) * 4, mode="reflect")


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
