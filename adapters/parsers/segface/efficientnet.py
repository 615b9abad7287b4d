"""EfficientNetV2-M as SegFace cuts it, under torchvision's names: features alone, taps at strides 4, 8, 16 and 32.

Paper: Tan and Le 2021, "EfficientNetV2"; table of stages and epsilon as in torchvision (BSD-3).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from .taps import Residual, SqueezeExcitation, Taps, conv_norm

EPS = 1e-3
TAPS = (2, 3, 5, 8)
WIDTHS = (48, 80, 176, 1280)
_STEM, _LAST = 24, 1280


class _Stage(NamedTuple):
    fused: bool
    expand: int
    stride: int
    out: int
    blocks: int


_STAGES = (
    _Stage(True, 1, 1, 24, 3),
    _Stage(True, 4, 2, 48, 5),
    _Stage(True, 4, 2, 80, 5),
    _Stage(False, 4, 2, 160, 7),
    _Stage(False, 6, 1, 176, 14),
    _Stage(False, 6, 2, 304, 18),
    _Stage(False, 6, 1, 512, 5),
)


def efficientnet() -> Taps:
    """The backbone; its widths are those of `WIDTHS`."""
    layers: list[nn.Module] = [conv_norm(3, _STEM, 3, 2, eps=EPS, activation=nn.SiLU)]
    width = _STEM
    for stage in _STAGES:
        layers.append(nn.Sequential(*_blocks(width, stage)))
        width = stage.out
    layers.append(conv_norm(width, _LAST, 1, eps=EPS, activation=nn.SiLU))
    return Taps(layers, TAPS)


def _blocks(width: int, stage: _Stage) -> list[nn.Module]:
    make = _fused if stage.fused else _inverted
    blocks: list[nn.Module] = []
    for number in range(stage.blocks):
        stride = 1 if number else stage.stride
        blocks.append(Residual(make(width, stage, stride), stride == 1 and width == stage.out))
        width = stage.out
    return blocks


def _fused(width: int, stage: _Stage, stride: int) -> list[nn.Module]:
    if stage.expand == 1:
        return [conv_norm(width, stage.out, 3, stride, eps=EPS, activation=nn.SiLU)]
    inside = width * stage.expand
    return [
        conv_norm(width, inside, 3, stride, eps=EPS, activation=nn.SiLU),
        conv_norm(inside, stage.out, 1, eps=EPS),
    ]


def _inverted(width: int, stage: _Stage, stride: int) -> list[nn.Module]:
    inside = width * stage.expand
    return [
        conv_norm(width, inside, 1, eps=EPS, activation=nn.SiLU),
        conv_norm(inside, inside, 3, stride, inside, eps=EPS, activation=nn.SiLU),
        SqueezeExcitation(inside, max(1, width // 4), nn.SiLU, nn.Sigmoid),
        conv_norm(inside, stage.out, 1, eps=EPS),
    ]
