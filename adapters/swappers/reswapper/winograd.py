"""Wide 3 x 3 convolutions on the CPU by Winograd's F(2 x 2, 3 x 3): 16 products for 4 outputs instead of 36.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308), section 4.1. The kernels are
transformed once for a call and serve all its pictures, which is what a batch saves; kept, they would take 1.8 times the
memory of the weights. Pictures are taken one at a time, so that their tiles stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Narrower layers, or larger maps, spend more on the transforms than the products save.
_WIDE = 512
_LARGEST = 64 * 64
_ROWS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def kernels_for(layer: nn.Conv2d, features: Tensor, height: int, width: int) -> Tensor | None:
    """Return the layer's kernels (16, O, C) for outputs of ``height`` x ``width``, or None where it does not pay."""
    wide = min(layer.in_channels, layer.out_channels) >= _WIDE and height * width <= _LARGEST
    plain = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and height % 2 == width % 2 == 0
    here = features.device.type == "cpu" and features.dtype == torch.float32 and not torch.is_grad_enabled()
    if not (wide and plain and here and layer.groups == 1 and layer.dilation == (1, 1)):
        return None
    rows = torch.tensor(_ROWS)
    both = torch.einsum("ia,jb->ijab", rows, rows).reshape(16, 9)
    weight = layer.weight.to(features).reshape(-1, 9)
    return (both @ weight.t()).view(16, layer.out_channels, layer.in_channels)


def convolve(layer: nn.Conv2d, kernels: Tensor | None, padded: Tensor) -> Tensor:
    """Return the layer's outputs (B, O, H, W) for features (B, C, H + 2, W + 2) that are padded already."""
    if kernels is None:
        found: Tensor = layer(padded)
        return found
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.to(padded)
    result = padded.new_empty(len(padded), layer.out_channels, padded.shape[2] - 2, padded.shape[3] - 2)
    for one, into in zip(padded, result, strict=True):
        _one(one, kernels, bias, into)
    return result


def _one(padded: Tensor, kernels: Tensor, bias: Tensor, into: Tensor) -> None:
    """One picture: (C, H + 2, W + 2) into (O, H, W)."""
    channels, tall, wide = padded.shape[0], into.shape[1] // 2, into.shape[2] // 2
    tiles = padded.new_empty(4, 4, channels, tall, wide)
    lines = [padded[:, start : start + 2 * tall - 1 : 2] for start in range(4)]
    for number, line in enumerate(_differences(lines)):
        parts = [line[..., start : start + 2 * wide - 1 : 2] for start in range(4)]
        for place, part in enumerate(_differences(parts)):
            tiles[number, place] = part
    products = torch.bmm(kernels, tiles.view(16, channels, -1)).view(4, 4, -1, tall, wide)
    places = into.view(-1, tall, 2, wide, 2)
    for row, sums in enumerate(_gathered(products)):
        for column, outputs in enumerate(_gathered(sums)):
            torch.add(outputs, bias[:, None, None], out=places[:, :, row, :, column])


def _differences(parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    first, second, third, fourth = parts
    return first - third, second + third, third - second, second - fourth


def _gathered(parts: Tensor) -> tuple[Tensor, Tensor]:
    return parts[0] + parts[1] + parts[2], parts[1] - parts[2] - parts[3]
