"""The networks of IP-Adapter-FaceID. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``ip_adapter/ip_adapter_faceid.py`` and ``attention_processor_faceid.py`` of tencent-ailab/IP-Adapter. Quirk the
Plus checkpoints depend on: the latents of their perceiver are the projected embedding, none are learned.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...layers import casting
from ...layers.perceiver import FacePerceiver

HEAD_DIM = 64


class EmbeddingProjection(nn.Module):
    """Face embedding to face tokens: linear, exact GELU, linear, LayerNorm over each token.

    Args:
        embedding_dim: channels of the embedding (512).
        hidden: channels in between (1024).
        tokens: number of tokens (4; Portrait 16).
        width: channels of a token, that is of the base model's text context.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, embedding_dim: int, hidden: int, tokens: int, width: int, operations: Any = nn) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.width = width
        self.proj = nn.Sequential(
            operations.Linear(embedding_dim, hidden), nn.GELU(), operations.Linear(hidden, tokens * width)
        )
        self.norm = operations.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, embedding_dim), each of unit length, gives (B, tokens, width)."""
        return self.norm(self.proj(embedding).unflatten(-1, (-1, self.width)))


class PlusProjection(EmbeddingProjection):
    """The projection of FaceID-Plus and PlusV2: `EmbeddingProjection` refined by a `FacePerceiver`.

    Args:
        embedding_dim, hidden, tokens, width: see `EmbeddingProjection`.
        image_dim, depth, feed_forward: see `FacePerceiver`.
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
        feed_forward: int,
        operations: Any = nn,
    ) -> None:
        super().__init__(embedding_dim, hidden, tokens, width, operations)
        self.image_dim = image_dim
        self.perceiver_resampler = FacePerceiver(image_dim, width, depth, width // HEAD_DIM, feed_forward, operations)

    def refined(self, embedding: Tensor, image_tokens: Tensor, shortcut: float | None) -> Tensor:
        """Face tokens (B, tokens, width).

        Args:
            embedding: (B, embedding_dim), each of unit length, or zero for the unconditional rows.
            image_tokens: (B, S, image_dim).
            shortcut: None gives the perceiver's result alone (Plus); a number ``s`` gives ``projected + s * perceiver``
                (PlusV2; despite its name the scale stands on the perceiver's side).
        """
        projected = self(embedding)
        perceived = self.perceiver_resampler(projected, image_tokens)
        return perceived if shortcut is None else projected + shortcut * perceived


class LowRankWeights(nn.Module):
    """``up @ down`` of one linear layer, without alpha: down (rank, in), up (out, rank)."""

    def __init__(self, in_dim: int, rank: int, out_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, out_dim, bias=False)


class FaceKeysValues(nn.Module):
    """The extra key and value maps of one attn2 layer, without bias.

    Args:
        context_dim: channels of a face token.
        width: channels of the layer.
        operations: namespace with Linear.
    """

    def __init__(self, context_dim: int, width: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.to_k_ip = operations.Linear(context_dim, width, bias=False)
        self.to_v_ip = operations.Linear(context_dim, width, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Face tokens (B, T, context_dim) give keys and values, each (B, T, width)."""
        return self.to_k_ip(tokens), self.to_v_ip(tokens)
