"""The cross-attention of PuLID for Flux. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``PerceiverAttentionCA`` in ``pulid/encoders_transformer.py`` of ToTheBeginning/PuLID. Keys and values come from
the identity alone, unlike in the perceiver of the same file; hence they are computed once for each identity.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...layers import casting
from ...layers.attention import Attention, attention

HEAD_DIM = 128


class IdentityCrossAttention(nn.Module):
    """Picture tokens look at identity tokens.

    Args:
        width: channels of a picture token (3072).
        id_width: channels of an identity token (2048).
        heads: heads of 128 channels (16).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, width: int, id_width: int, heads: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        inner = heads * HEAD_DIM
        self.norm1 = operations.LayerNorm(id_width)
        self.norm2 = operations.LayerNorm(width)
        self.to_q = operations.Linear(width, inner, bias=False)
        self.to_kv = operations.Linear(id_width, 2 * inner, bias=False)
        self.to_out = operations.Linear(inner, width, bias=False)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Identity tokens (B, T, id_width) give keys and values, each (B, T, inner)."""
        k, v = self.to_kv(self.norm1(tokens)).chunk(2, dim=-1)
        return k, v

    def forward(self, image: Tensor, k: Tensor, v: Tensor, attend: Attention = attention) -> Tensor:
        """What is to be added to picture tokens (B, N, width), times the strength.

        Args:
            image: (B, N, width).
            k: (B, T, inner) of `keys_values`, as ``image`` is typed and placed.
            v: (B, T, inner).
            attend: ``(q, k, v, heads) -> (B, N, inner)``.
        """
        return self.to_out(attend(self.to_q(self.norm2(image)), k, v, self.heads))
