"""The temporal transformer of AnimateDiff v2 (Guo et al. 2023, arXiv:2307.04725), which the host does not have.

Attribute names are the checkpoint's key names under ``motion_modules.{j}.``: ``temporal_transformer.{norm, proj_in,
transformer_blocks.0.{attention_blocks.{0,1}, norms.{0,1}, ff, ff_norm}, proj_out}``. Follows
``animatediff/models/motion_module.py``. The quirk the checkpoint depends on: positions are added to the normed input
of queries, keys and values alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers import casting
from ...layers.attention import Attention, attention
from ...layers.gated_attention import GatedFeedForward

HEADS = 8
GROUPS = 32


class Positions(nn.Module):
    """A stored table of positions, pe (1, max, C)."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, length, width))


class TemporalAttention(nn.Module):
    """Self-attention over the frames at each place of the picture."""

    def __init__(self, width: int, length: int, operations: Any = casting) -> None:
        super().__init__()
        self.to_q = operations.Linear(width, width, bias=False)
        self.to_k = operations.Linear(width, width, bias=False)
        self.to_v = operations.Linear(width, width, bias=False)
        self.to_out = nn.Sequential(operations.Linear(width, width))
        self.pos_encoder = Positions(width, length)

    def forward(self, x: Tensor, attend: Attention = attention) -> Tensor:
        """(places, F, C) -> (places, F, C)."""
        pe = self.pos_encoder.get_buffer("pe")[:, : x.shape[1]].to(x)
        x = x + pe
        return self.to_out(attend(self.to_q(x), self.to_k(x), self.to_v(x), HEADS))


class TemporalBlock(nn.Module):
    """Two temporal self-attentions and a feed-forward, each with its norm and residual."""

    def __init__(self, width: int, length: int, operations: Any = casting) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(width, length, operations) for _ in range(2))
        self.norms = nn.ModuleList(operations.LayerNorm(width) for _ in range(2))
        self.ff = GatedFeedForward(width, 4 * width, operations)
        self.ff_norm = operations.LayerNorm(width)

    def forward(self, x: Tensor, attend: Attention = attention) -> Tensor:
        """(places, F, C) -> (places, F, C)."""
        for norm, block in zip(self.norms, self.attention_blocks, strict=True):
            x = x + block(norm(x), attend)
        return x + self.ff(self.ff_norm(x))


class GroupNorm(nn.GroupNorm):
    """Group norm that computes in its input's dtype."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight, bias = self.weight.to(input), self.bias.to(input)
        return functional.group_norm(input, self.num_groups, weight, bias, self.eps)


class TemporalTransformer(nn.Module):
    """Norm of each frame, one temporal block, residual."""

    def __init__(self, width: int, length: int, operations: Any = casting) -> None:
        super().__init__()
        self.norm = GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = operations.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, length, operations)])
        self.proj_out = operations.Linear(width, width)

    def forward(self, x: Tensor, frames: int, attend: Attention = attention) -> Tensor:
        """(clips * frames, C, H, W), frames fastest, to the same shape."""
        rows, width, height, columns = x.shape
        clips, places = rows // frames, height * columns
        h = self.norm(x).view(clips, frames, width, places).permute(0, 3, 1, 2).reshape(-1, frames, width)
        h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, attend)
        h = self.proj_out(h).view(clips, places, frames, width).permute(0, 2, 3, 1)
        return x + h.reshape(rows, width, height, columns)


class MotionLayer(nn.Module):
    """One entry of ``motion_modules``.

    Args:
        width: channels of the UNet at this place.
        length: positions of the table, the largest number of frames (32 in AnimateDiff v2).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, width: int, length: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.length = length
        self.temporal_transformer = TemporalTransformer(width, length, operations)

    def forward(self, x: Tensor, frames: int, attend: Attention = attention) -> Tensor:
        """(clips * frames, width, H, W), frames fastest, to the same shape; frames <= length."""
        return self.temporal_transformer(x, frames, attend)
