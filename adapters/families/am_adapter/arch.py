"""The matcher of AM-Adapter: 4D convolutions over the attention logits of (query pixel, key pixel) pairs.

Attribute names are the checkpoint's key names: ``encoders.{0,1,2}.conv4d.{0..3}.0.{query_conv,supp_conv}`` and
``encoders.{e}.conv4d.{l}.1`` (group norm). Follows ``src/models/matching_module.py``. The quirk a checkpoint depends
on: the official processor hands the block's name over as an unused argument, so the first encoder serves every layer,
and the other two are never used.

A centre-pivot layer is ``query_conv`` (1x1 over the query's grid) plus ``supp_conv`` (3x3 over the key's grid). The
former maps each pair by itself, so it is the centre tap of the latter: both fold into one ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-5
ENCODERS = 3
USED = 0


class FoldedLayer(NamedTuple):
    """One layer ready for use: kernel (O, I, 3, 3), bias (O,), and the norm's scale and shift (O, 1, 1)."""

    kernel: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


class CentrePivotConv(nn.Module):
    """``query_conv`` over the query's grid plus ``supp_conv`` over the key's grid."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.query_conv = nn.Conv2d(inputs, outputs, 1)
        self.supp_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel (O, I, 3, 3) and bias (O,) of the sum of both, in float32."""
        kernel = self.supp_conv.weight.float() + functional.pad(self.query_conv.weight.float(), (1, 1, 1, 1))
        biases = [conv.bias for conv in (self.query_conv, self.supp_conv) if conv.bias is not None]
        return kernel, torch.stack([bias.float() for bias in biases]).sum(0)


class MatchEncoder(nn.Module):
    """Layers of centre-pivot convolution, group norm over everything, ReLU.

    Args:
        widths: channels before the first layer and after each.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.conv4d = nn.ModuleList(
            nn.Sequential(CentrePivotConv(inputs, outputs), nn.GroupNorm(1, outputs, EPS)) for inputs, outputs in pairs
        )

    def folded(self, device: torch.device) -> tuple[FoldedLayer, ...]:
        """The layers for `match`, in float32 on ``device``."""
        return tuple(_folded(layer, device) for layer in self.conv4d)


class Matcher(nn.Module):
    """The whole file: three encoders, of which the first one is used.

    Args:
        widths: channels before the first layer and after each; officially 9 (8 heads and the maps), 16, 32, 16, 8.
        encoders: number of encoders in the file.
    """

    def __init__(self, widths: Sequence[int], encoders: int = ENCODERS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.encoders = nn.ModuleList(MatchEncoder(widths) for _ in range(encoders))

    def folded(self, device: torch.device, encoder: int = USED) -> tuple[FoldedLayer, ...]:
        """The layers of an encoder, by default the one in use, for `match`."""
        return _encoder(self.encoders[encoder]).folded(device)

    def forward(self, pairs: Tensor, encoder: int = USED) -> Tensor:
        """(B, C, Hq, Wq, Hs, Ws) -> (B, heads, Hq, Wq, Hs, Ws); encoders are those of down, middle and up blocks."""
        rows, channels, height, width, *keys = pairs.shape
        x = pairs.reshape(rows, channels, height * width, *keys).transpose(1, 2)
        out = match(x.float(), self.folded(pairs.device, encoder))
        return out.transpose(1, 2).reshape(rows, out.shape[2], height, width, *keys)


def match(x: Tensor, layers: Sequence[FoldedLayer]) -> Tensor:
    """Run folded layers over pairs (B, Nq, C, Hs, Ws); return (B, Nq, heads, Hs, Ws), not negative.

    The norm spans all pairs of a row, so a row cannot be computed in tiles.
    """
    rows, queries = x.shape[:2]
    x = x.flatten(0, 1)
    for layer in layers:
        y = functional.conv2d(x, layer.kernel, layer.bias, padding=1).unflatten(0, (rows, queries))
        variance, mean = torch.var_mean(y, dim=(1, 2, 3, 4), correction=0, keepdim=True)
        scale = layer.scale * torch.rsqrt(variance + EPS)
        x = torch.addcmul(torch.addcmul(layer.shift, mean, scale, value=-1), y, scale).relu_().flatten(0, 1)
    return x.unflatten(0, (rows, queries))


def _folded(layer: nn.Module, device: torch.device) -> FoldedLayer:
    conv, norm = layer.get_submodule("0"), layer.get_submodule("1")
    if not isinstance(conv, CentrePivotConv) or not isinstance(norm, nn.GroupNorm):
        raise TypeError(type(conv).__name__)
    kernel, bias = conv.folded()
    scale, shift = (parameter.float().view(-1, 1, 1) for parameter in (norm.weight, norm.bias))
    return FoldedLayer(*(tensor.to(device) for tensor in (kernel, bias, scale, shift)))


def _encoder(module: nn.Module) -> MatchEncoder:
    if not isinstance(module, MatchEncoder):
        raise TypeError(type(module).__name__)
    return module
