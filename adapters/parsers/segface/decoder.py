"""SegFace's decoder: class tokens and the picture's features exchange what they know, then each token draws its mask.

The two-way transformer of Segment Anything (Kirillov et al. 2023) as SegFace sets it up. Quirks the files depend on:
the first block's attention among tokens replaces them; attention between tokens and picture has half the width; one
network turns all tokens into masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .labels import Label

HEADS = 8
UPSCALED = 8  # the widths after enlarging are dim / 4 and dim / 8
NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention of ``width`` channels inside: (B, Q, dim), (B, K, dim) -> (B, Q, dim)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, width)
        self.k_proj = nn.Linear(dim, width)
        self.v_proj = nn.Linear(dim, width)
        self.out_proj = nn.Linear(width, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend."""
        parts = (self.q_proj(q), self.k_proj(k), self.v_proj(v))
        heads = (part.reshape(*part.shape[:2], HEADS, -1).transpose(1, 2) for part in parts)
        return self.out_proj(functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, dim: int, inside: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, inside)
        self.lin2 = nn.Linear(inside, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(functional.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to picture, tokens alone, picture to tokens.

    Args:
        dim: width of tokens and features.
        inside: width between the two linear layers.
        first: the block whose attention among tokens replaces them.
    """

    def __init__(self, dim: int, inside: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, inside)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, dim // 2)

    def forward(self, tokens: Tensor, features: Tensor, own: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange; ``own`` are the tokens as they began, ``places`` the code of each feature's place."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            named = tokens + own
            tokens = tokens + self.self_attn(named, named, tokens)
        tokens = self.norm1(tokens)
        placed = features + places
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + own, placed, features))
        tokens = self.norm3(tokens + self.mlp(tokens))
        features = self.norm4(features + self.cross_attn_image_to_token(placed, tokens + own, tokens))
        return tokens, features


class TwoWayTransformer(nn.Module):
    """(B, N, dim) tokens and (B, P, dim) features -> both, each knowing the other."""

    def __init__(self, dim: int, inside: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, inside, number == 0) for number in range(depth))
        self.final_attn_token_to_image = Attention(dim, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, features: Tensor, places: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks."""
        tokens = own
        for layer in self.layers:
            tokens, features = layer(tokens, features, own, places)
        seen = self.final_attn_token_to_image(tokens + own, features + places, features)
        return self.norm_final_attn(tokens + seen), features


class _NormOfChannels(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        last = functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, NORM_EPS)
        return last.permute(0, 3, 1, 2)


class _Layers(nn.Module):
    """Linear layers with ReLU between them, under the name ``layers``."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class FaceDecoder(nn.Module):
    """Features and the codes of their places -> one map of logits for each label.

    Args:
        labels: the channels in order.
        dim: width of the features.
        inside: width of the blocks' linear layers.
        depth: number of blocks.
    """

    def __init__(self, labels: tuple[Label, ...], dim: int, inside: int, depth: int) -> None:
        super().__init__()
        self.labels = labels
        for label in labels:
            self.add_module(f"{label.token}_token", nn.Embedding(1, dim))
        self.transformer = TwoWayTransformer(dim, inside, depth)
        narrow = dim // UPSCALED
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, 2 * narrow, 2, 2),
            _NormOfChannels(2 * narrow),
            nn.GELU(),
            nn.ConvTranspose2d(2 * narrow, narrow, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetwork_mlps = _Layers((dim, dim, dim, narrow))

    def tokens(self) -> Tensor:
        """(N, dim) in the order of the channels."""
        return torch.cat([self.get_parameter(f"{label.token}_token.weight") for label in self.labels])

    def exchange(self, features: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim, h, w) features and (dim, h, w) places -> tokens (B, N, dim) and features (B, h w, dim)."""
        own = self.tokens().expand(features.shape[0], -1, -1)
        return self.transformer(features.flatten(2).transpose(1, 2), places.flatten(1).T[None], own)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, N, 4 h, 4 w)."""
        tokens, seen = self.exchange(features, places)
        large = self.output_upscaling(seen.transpose(1, 2).reshape(features.shape))
        return torch.einsum("bnc,bchw->bnhw", self.output_hypernetwork_mlps(tokens), large)
