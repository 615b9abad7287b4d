"""Swin transformers, first and second version, as SegFace cuts them, under torchvision's names.

Papers: Liu et al. 2021, "Swin Transformer"; Liu et al. 2022, "Swin Transformer V2". Quirks of torchvision (BSD-3) that
the files depend on: pictures are filled with zeros to whole windows before the shift, and filled places are not
masked; a window as large as its map does not shift. Maps are (B, H, W, C) inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .taps import Taps

TAPS = (1, 3, 5, 7)
HEAD = 32
_FAR = -100.0
_INSIDE_BIAS = 512


class _LastFromImage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class _Merge(nn.Module):
    """Four neighbours become one of twice the width: (B, H, W, C) -> (B, H / 2, W / 2, 2 C)."""

    def __init__(self, width: int, second: bool) -> None:
        super().__init__()
        self.second = second
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(2 * width if second else 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = torch.cat(parts, dim=-1)
        return self.norm(self.reduction(x)) if self.second else self.reduction(self.norm(x))


class WindowAttention(nn.Module):
    """Attention inside windows, every second time shifted by half a window: (B, H, W, C) -> the same.

    Args:
        width: C.
        window: side of a window.
        shift: whether windows are shifted.
        second: cosine attention with a bias from a small network (version 2).
    """

    def __init__(self, width: int, window: int, shift: bool, second: bool) -> None:
        super().__init__()
        self.window, self.second = window, second
        self.shift = window // 2 if shift else 0
        self.heads = max(1, width // HEAD)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("relative_position_index", _relative_index(window))
        self.relative_position_index: Tensor
        if second:
            self.logit_scale = nn.Parameter(torch.full((self.heads, 1, 1), math.log(10)))
            self.cpb_mlp = nn.Sequential(
                nn.Linear(2, _INSIDE_BIAS), nn.ReLU(), nn.Linear(_INSIDE_BIAS, self.heads, bias=False)
            )
            self.register_buffer("relative_coords_table", _relative_table(window))
            self.relative_coords_table: Tensor
        else:
            self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, self.heads))

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        height, width = x.shape[1:3]
        window = self.window
        x = functional.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        size = (x.shape[1], x.shape[2])
        shifts = tuple(0 if window >= side else self.shift for side in size)
        if any(shifts):
            x = torch.roll(x, (-shifts[0], -shifts[1]), (1, 2))
        windows = _to_windows(x, window)
        far = _far(size, window, shifts, x.device, x.dtype) if any(shifts) else None
        x = _from_windows(self._attend(windows, far), size, window)
        if any(shifts):
            x = torch.roll(x, shifts, (1, 2))
        return x[:, :height, :width]

    def _attend(self, x: Tensor, far: Tensor | None) -> Tensor:
        """(B n, N, C) of n windows a picture."""
        count, places, width = x.shape
        qkv = functional.linear(x, self.qkv.weight, self._qkv_bias())
        q, k, v = qkv.reshape(count, places, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.second:
            scale = self.logit_scale.clamp(max=math.log(100.0)).exp()
            weights = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1) * scale
        else:
            weights = q * (width // self.heads) ** -0.5 @ k.transpose(-2, -1)
        weights = weights + self._bias()
        if far is not None:
            apart = weights.reshape(-1, far.shape[0], self.heads, places, places) + far[:, None]
            weights = apart.reshape(-1, self.heads, places, places)
        x = (weights.softmax(-1) @ v).transpose(1, 2).reshape(count, places, width)
        return self.proj(x)

    def _qkv_bias(self) -> Tensor:
        if not self.second:
            return self.qkv.bias
        third = self.proj.out_features
        return torch.cat([self.qkv.bias[:third], torch.zeros_like(self.qkv.bias[:third]), self.qkv.bias[2 * third :]])

    def _bias(self) -> Tensor:
        """(heads, N, N)."""
        if self.second:
            table = self.cpb_mlp(self.relative_coords_table).reshape(-1, self.heads)
        else:
            table = self.relative_position_bias_table
        places = self.window**2
        bias = table[self.relative_position_index].reshape(places, places, self.heads).permute(2, 0, 1)
        return 16 * bias.sigmoid() if self.second else bias


class _Block(nn.Module):
    """Windows and two linear layers; norms before each (version 1) or after (version 2)."""

    def __init__(self, width: int, window: int, shift: bool, second: bool) -> None:
        super().__init__()
        self.second = second
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, window, shift, second)
        self.norm2 = nn.LayerNorm(width)
        # The published names count a dropout after each linear layer.
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width), nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.second:
            x = x + self.norm1(self.attn(x))
            return x + self.norm2(self.mlp(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _ImageTaps(Taps):
    def forward(self, input: Tensor) -> list[Tensor]:  # noqa: A002 (the name torch gives it)
        return [tap.permute(0, 3, 1, 2) for tap in super().forward(input)]


def swin(stem: int, depths: Sequence[int], window: int, second: bool) -> nn.Sequential:
    """The backbone.

    Args:
        stem: channels of the first tap; each further one has twice as many. Heads are 32 channels wide.
        depths: blocks of each of the four stages.
        window: side of a window (published: 7, version 2: 8).
        second: version 2.
    """
    layers: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, stem, 4, 4), _LastFromImage(), nn.LayerNorm(stem))]
    for number, depth in enumerate(depths):
        width = stem << number
        if number:
            layers.append(_Merge(width // 2, second))
        layers.append(nn.Sequential(*(_Block(width, window, block % 2 == 1, second) for block in range(depth))))
    return nn.Sequential(_ImageTaps(layers, TAPS))


def _to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B n, window * window, C)."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def _from_windows(x: Tensor, size: tuple[int, int], window: int) -> Tensor:
    rows, columns = size[0] // window, size[1] // window
    x = x.reshape(-1, rows, columns, window, window, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, size[0], size[1], x.shape[-1])


def _far(size: tuple[int, int], window: int, shifts: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(n, N, N): what keeps places apart that only the shift brought into one window."""
    regions = []
    for side, shift in zip(size, shifts, strict=True):
        place = torch.arange(side, device=device)
        regions.append((place >= side - window).long() + (place >= side - shift).long() * (shift > 0))
    numbers = (regions[0][:, None] * 3 + regions[1][None]).reshape(1, *size, 1)
    numbers = _to_windows(numbers, window)[..., 0]
    apart = numbers[:, :, None] != numbers[:, None, :]
    return apart.to(dtype) * _FAR


def _relative_index(window: int) -> Tensor:
    """(N * N,) row of the table of relative places for each pair of places in a window."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    offsets = places[:, None] - places[None] + window - 1
    return (offsets[..., 0] * (2 * window - 1) + offsets[..., 1]).flatten()


def _relative_table(window: int) -> Tensor:
    """(1, 2 w - 1, 2 w - 1, 2) relative places, logarithmic (files hold it too)."""
    side = torch.arange(-(window - 1), window, dtype=torch.float32)
    table = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1)[None] * 8 / max(window - 1, 1)
    return table.sign() * torch.log2(table.abs() + 1) / 3.0
