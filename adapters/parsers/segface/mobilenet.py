"""MobileNetV3-Large as SegFace cuts it, under torchvision's names: features alone, taps at strides 4, 8, 16 and 32.

Paper: Howard et al. 2019, "Searching for MobileNetV3"; table of blocks and epsilon as in torchvision (BSD-3).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from .taps import Activation, Residual, SqueezeExcitation, Taps, conv_norm

EPS = 1e-3
TAPS = (3, 6, 12, 16)
WIDTHS = (24, 40, 112, 960)
_STEM, _LAST = 16, 960


class _Block(NamedTuple):
    kernel: int
    inside: int
    out: int
    squeeze: bool
    swish: bool
    stride: int


_BLOCKS = (
    _Block(3, 16, 16, False, False, 1),
    _Block(3, 64, 24, False, False, 2),
    _Block(3, 72, 24, False, False, 1),
    _Block(5, 72, 40, True, False, 2),
    _Block(5, 120, 40, True, False, 1),
    _Block(5, 120, 40, True, False, 1),
    _Block(3, 240, 80, False, True, 2),
    _Block(3, 200, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 480, 112, True, True, 1),
    _Block(3, 672, 112, True, True, 1),
    _Block(5, 672, 160, True, True, 2),
    _Block(5, 960, 160, True, True, 1),
    _Block(5, 960, 160, True, True, 1),
)


def mobilenet() -> Taps:
    """The backbone; its widths are those of `WIDTHS`."""
    layers: list[nn.Module] = [conv_norm(3, _STEM, 3, 2, eps=EPS, activation=nn.Hardswish)]
    width = _STEM
    for block in _BLOCKS:
        layers.append(_inverted(width, block))
        width = block.out
    layers.append(conv_norm(width, _LAST, 1, eps=EPS, activation=nn.Hardswish))
    return Taps(layers, TAPS)


def _inverted(width: int, block: _Block) -> Residual:
    activation: Activation = nn.Hardswish if block.swish else nn.ReLU
    inside = block.inside
    layers: list[nn.Module] = []
    if inside != width:
        layers.append(conv_norm(width, inside, 1, eps=EPS, activation=activation))
    layers.append(conv_norm(inside, inside, block.kernel, block.stride, inside, eps=EPS, activation=activation))
    if block.squeeze:
        layers.append(SqueezeExcitation(inside, _divisible(inside // 4), nn.ReLU, nn.Hardsigmoid))
    layers.append(conv_norm(inside, block.out, 1, eps=EPS))
    return Residual(layers, block.stride == 1 and width == block.out)


def _divisible(width: float, by: int = 8) -> int:
    """The nearest multiple, never a tenth below the width."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded
