"""The networks of PhotoMaker. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``photomaker/model.py``, ``model_v2.py`` and ``resampler.py`` of TencentARC/PhotoMaker (Li et al. 2023,
arXiv:2312.04461). Quirks the checkpoints depend on: v2 reads CLIP's last hidden state before its closing layer norm,
and its perceiver has heads of 128, four times the usual feed-forward, and a residual from the face tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ...layers.perceiver import FacePerceiver
from .vision import VisionTransformer


class FuseBlock(nn.Module):
    """LayerNorm, linear, exact GELU, linear; with a residual where input and output are as wide.

    Args:
        inputs: channels of the input.
        width: channels inside and of the output.
        residual: add the input.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, inputs: int, width: int, residual: bool, operations: Any = nn) -> None:
        super().__init__()
        self.residual = residual
        self.layernorm = operations.LayerNorm(inputs)
        self.fc1 = operations.Linear(inputs, width)
        self.fc2 = operations.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) gives (..., width)."""
        out = self.fc2(gelu(self.fc1(self.layernorm(x))))
        return x + out if self.residual else out


class FuseModule(nn.Module):
    """Writes identity tokens into the rows of the class word.

    Args:
        width: channels of the text conditioning (2048).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, width: int, operations: Any = nn) -> None:
        super().__init__()
        self.mlp1 = FuseBlock(2 * width, width, False, operations)
        self.mlp2 = FuseBlock(width, width, True, operations)
        self.layer_norm = operations.LayerNorm(width)

    def forward(self, words: Tensor, identity: Tensor) -> Tensor:
        """Rows of the class word (N, width) and identity tokens (N, width) give the fused rows (N, width)."""
        fused = self.mlp1(torch.cat((words, identity), dim=-1)) + words
        return self.layer_norm(self.mlp2(fused))

    def fused(self, prompt: Tensor, identity: Tensor, rows: Sequence[int]) -> Tensor:
        """A copy of the text conditioning (B, T, width) in which ``rows`` are fused with identity tokens (N, width)."""
        result = prompt.clone()
        for batch in result:
            batch[list(rows)] = self(batch[list(rows)], identity)
        return result


class QFormerPerceiver(nn.Module):
    """PhotoMaker v2: a raw face embedding to identity tokens, refined by CLIP's last hidden state.

    Args:
        embedding_dim: channels of the face embedding (512).
        hidden: channels in between (2048).
        tokens: tokens per photo (2).
        width: channels of a token (2048).
        image_dim, depth, heads, feed_forward: see `FacePerceiver`.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden: int,
        tokens: int,
        width: int,
        *,
        image_dim: int,
        depth: int,
        heads: int,
        feed_forward: int,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.width = width
        self.token_proj = nn.Sequential(
            operations.Linear(embedding_dim, hidden), nn.GELU(), operations.Linear(hidden, tokens * width)
        )
        self.token_norm = operations.LayerNorm(width)
        self.perceiver_resampler = FacePerceiver(image_dim, width, depth, heads, feed_forward, operations)

    def forward(self, embedding: Tensor, hidden: Tensor) -> Tensor:
        """Raw embeddings (N, embedding_dim) and hidden states (N, S, image_dim) give (N, tokens, width)."""
        tokens = self.token_norm(self.token_proj(embedding).unflatten(-1, (-1, self.width)))
        return tokens + self.perceiver_resampler(tokens, hidden)


class IDEncoder(nn.Module):
    """The ``id_encoder`` part of a file: CLIP's image tower, its two projections, fusion, and for v2 the perceiver.

    Args:
        vision: the image tower.
        first, second: channels of the two projections (768 and 1280), which together are a token of v1.
        perceiver: v2's, or None for v1.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self,
        vision: VisionTransformer,
        first: int,
        second: int,
        perceiver: QFormerPerceiver | None = None,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.width = first + second
        self.vision_model = vision
        self.visual_projection = operations.Linear(vision.width, first, bias=False)
        self.visual_projection_2 = operations.Linear(vision.width, second, bias=False)
        self.fuse_module = FuseModule(first + second, operations)
        if perceiver is not None:
            self.qformer_perceiver = perceiver

    def forward(self, pixels: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Identity tokens (N, T, first + second) of N photos: one each for v1, two for v2.

        Args:
            pixels: (N, 3, 224, 224) normalised as CLIP expects.
            embedding: raw face embeddings (N, 512), which v2 needs.
        """
        hidden, pooled = self.vision_model(pixels)
        if embedding is None:
            return torch.cat((self.visual_projection(pooled), self.visual_projection_2(pooled)), dim=-1)[:, None]
        return self.qformer_perceiver(embedding, hidden)
