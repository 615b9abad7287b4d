"""The image tower of CLIP ViT-L/14 under the names that Hugging Face's CLIP has, which PhotoMaker's files use.

Facts: Radford et al. 2021 (arXiv:2103.00020); pre-norm blocks, quick GELU (``x * sigmoid(1.702 x)``), a layer norm
before the first block (its published name is misspelt) and one on the class token after the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers.attention import attention


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, operations: Any) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = operations.Linear(width, width)
        self.k_proj = operations.Linear(width, width)
        self.v_proj = operations.Linear(width, width)
        self.out_proj = operations.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int, operations: Any) -> None:
        super().__init__()
        self.fc1 = operations.Linear(width, inner)
        self.fc2 = operations.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, operations: Any) -> None:
        super().__init__()
        self.layer_norm1 = operations.LayerNorm(width)
        self.self_attn = _SelfAttention(width, heads, operations)
        self.layer_norm2 = operations.LayerNorm(width)
        self.mlp = _Mlp(width, inner, operations)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Embeddings(nn.Module):
    def __init__(self, width: int, patch: int, positions: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(positions, width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    """CLIP's image tower.

    Args:
        width: channels (1024).
        depth: blocks (24).
        heads: heads of each (16).
        inner: inner channels of each MLP (4096).
        patch: side of a patch in pixels (14).
        positions: patches of a picture and the class token (257 at 224 px).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self, width: int, depth: int, heads: int, inner: int, patch: int, positions: int, operations: Any = nn
    ) -> None:
        super().__init__()
        self.width = width
        self.image_size = patch * round((positions - 1) ** 0.5)
        self.embeddings = _Embeddings(width, patch, positions)
        self.pre_layrnorm = operations.LayerNorm(width)
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(_Block(width, heads, inner, operations) for _ in range(depth))}
        )
        self.post_layernorm = operations.LayerNorm(width)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, S, S) give the last hidden state (N, positions, width) before the closing norm, and the normed
        class token (N, width).
        """
        x = self.pre_layrnorm(self.embeddings(pixels))
        layers: Any = self.encoder["layers"]
        for block in layers:
            x = block(x)
        return x, self.post_layernorm(x[:, 0])
