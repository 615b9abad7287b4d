"""The vision transformer of EVA02-CLIP. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``eva_clip/eva_vit_model.py`` and ``rope.py`` of baaivision/EVA (Sun et al. 2023, arXiv:2303.15389) in the
configuration EVA02-CLIP-L-14-336: separate maps for q, k and v (k without bias), a LayerNorm inside attention and
feed-forward, SiLU-gated feed-forward, rotary positions on the patches in q and k beside learned ones. Quirk the
checkpoint depends on: rotary positions are those of the 16 x 16 grid the model was first trained on, stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers import casting

HEAD_DIM = 64
EPSILON = 1e-6
TRAINED_GRID = 16
THETA = 10000.0
# PuLID looks at the states after these numbers of blocks.
HIDDEN_AFTER = (4, 8, 12, 16, 20)


@dataclass(frozen=True)
class EvaConfig:
    """Sizes of the network.

    Attributes:
        width: channels (1024).
        depth: blocks (24).
        feed_forward: inner channels of the feed-forward (2730).
        patch: side of a patch in pixels (14).
        grid: patches along a side (24).
        output: channels of the picture vector (768).
    """

    width: int
    depth: int
    feed_forward: int
    patch: int
    grid: int
    output: int

    @property
    def image_size(self) -> int:
        """Side of the picture in pixels."""
        return self.patch * self.grid


class PatchEmbed(nn.Module):
    """Cuts a picture into patches: (B, 3, S, S) -> (B, patches, width)."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, patches, width), row by row."""
        bias = None if self.proj.bias is None else self.proj.bias.to(x)
        return functional.conv2d(x, self.proj.weight.to(x), bias, self.proj.stride).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with rotary positions on all tokens but the first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = casting.Linear(width, width, bias=False)
        self.k_proj = casting.Linear(width, width, bias=False)
        self.v_proj = casting.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.inner_attn_ln = casting.LayerNorm(width, eps=EPSILON)
        self.proj = casting.Linear(width, width)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, 1 + patches, width) -> the same; ``rotation`` holds cosines and sines (patches, 64)."""
        q, k, v = self.q_proj(x) + self.q_bias.to(x), self.k_proj(x), self.v_proj(x) + self.v_bias.to(x)
        q, k, v = (part.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in (q, k, v))
        q, k = _rotated(q, *rotation), _rotated(k, *rotation)
        out = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(self.inner_attn_ln(out))


class GatedFeedForward(nn.Module):
    """``w3(norm(silu(w1 x) * w2 x))``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = casting.Linear(width, inner)
        self.w2 = casting.Linear(width, inner)
        self.ffn_ln = casting.LayerNorm(inner, eps=EPSILON)
        self.w3 = casting.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        return self.w3(self.ffn_ln(functional.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    """Attention and feed-forward, each after a norm and with a residual."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1 = casting.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width)
        self.norm2 = casting.LayerNorm(width, eps=EPSILON)
        self.mlp = GatedFeedForward(width, inner)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class EvaVision(nn.Module):
    """Picture to a vector and to hidden states.

    Args:
        config: the sizes.
    """

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embed = PatchEmbed(config.width, config.patch)
        self.blocks = nn.ModuleList(Block(config.width, config.feed_forward) for _ in range(config.depth))
        self.norm = casting.LayerNorm(config.width, eps=EPSILON)
        self.head = casting.Linear(config.width, config.output)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Picture vector (B, output), not of unit length, and hidden states (B, 5, 1 + patches, width).

        Args:
            x: (B, 3, S, S) normalised pictures of the network's own size.
        """
        patches = self.patch_embed(x)
        x = torch.cat((self.cls_token.to(patches).expand(len(patches), -1, -1), patches), dim=1)
        x = x + self.pos_embed.to(x)
        rotation = rotary_table(self.config.grid, x)
        hidden = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, rotation)
            if number in HIDDEN_AFTER:
                hidden.append(x)
        return self.head(self.norm(x)[:, 0]), torch.stack(hidden, dim=1)


def rotary_table(grid: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (grid * grid, 64): half of a head's channels turn with the row, half with the column."""
    half = HEAD_DIM // 2
    speeds = THETA ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)
    places = torch.arange(grid, dtype=torch.float32) / grid * TRAINED_GRID
    angles = torch.outer(places, speeds).repeat_interleave(2, dim=-1)
    rows, columns = angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    table = torch.cat((rows, columns), dim=-1).flatten(0, 1)
    return table.cos().to(like), table.sin().to(like)


def _rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels of all tokens but the first; x (B, heads, 1 + patches, 64)."""
    first, patches = x[:, :, :1], x[:, :, 1:]
    pairs = patches.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return torch.cat((first, patches * cosines + turned * sines), dim=2)
