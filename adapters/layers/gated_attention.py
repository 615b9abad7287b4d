"""The gated self-attention layer of GLIGEN, which FaceChain-FACT puts between self-attention and text attention.

Attribute names are the checkpoints' key names, so do not rename them: ``alpha_attn alpha_dense linear attn.to_q
attn.to_k attn.to_v attn.to_out.0 ff.net.0.proj ff.net.2 norm1 norm2``. They are also those of the host's GLIGEN layer.

Follows ``face_attention_processor_v1.py`` of FaceChain-FACT. The official layer concatenates visual and face tokens,
attends over all of them and throws the face rows away. LayerNorm and the linear maps act on each token alone, hence the
keys and values of the face tokens do not depend on the picture: they are computed once for each identity, and queries
only for the visual tokens. The numbers are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from .attention import Attention, attention


class SelfAttentionWeights(nn.Module):
    """The four linear maps of a self-attention; the attention itself is the caller's."""

    def __init__(self, width: int, inner: int, operations: Any = nn) -> None:
        super().__init__()
        self.to_q = operations.Linear(width, inner, bias=False)
        self.to_k = operations.Linear(width, inner, bias=False)
        self.to_v = operations.Linear(width, inner, bias=False)
        self.to_out = nn.Sequential(operations.Linear(inner, width))


class GatedGelu(nn.Module):
    """Linear to twice ``inner`` channels: the first half is the value, the second its gate (exact GELU)."""

    def __init__(self, width: int, inner: int, operations: Any = nn) -> None:
        super().__init__()
        self.proj = operations.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * gelu(gate)


class GatedFeedForward(nn.Module):
    """Gated GELU and a linear map back; ``net.1`` is the dropout of training, which has no weights."""

    def __init__(self, width: int, inner: int, operations: Any = nn) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(width, inner, operations), nn.Identity(), operations.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        return self.net(x)


class GatedSelfAttention(nn.Module):
    """Visual tokens attend to themselves and to the face tokens; both residuals are gated by a learned tanh.

    Args:
        width: channels of the transformer block.
        context_dim: channels of the face tokens.
        heads: number of heads (8 in FaceChain-FACT and GLIGEN).
        head_dim: channels of a head.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, width: int, context_dim: int, heads: int, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.alpha_attn = nn.Parameter(torch.tensor(0.0))
        self.alpha_dense = nn.Parameter(torch.tensor(0.0))
        self.linear = operations.Linear(context_dim, width)
        self.attn = SelfAttentionWeights(width, heads * head_dim, operations)
        self.ff = GatedFeedForward(width, 4 * width, operations)
        self.norm1 = operations.LayerNorm(width)
        self.norm2 = operations.LayerNorm(width)

    def face_keys_values(self, face_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the face tokens, constants of identity and layer.

        Args:
            face_tokens: (B, T, context_dim).

        Returns:
            Keys and values, each (B, T, width).
        """
        face = self.norm1(self.linear(face_tokens))
        return self.attn.to_k(face), self.attn.to_v(face)

    def forward(
        self, x: Tensor, face_kv: tuple[Tensor, Tensor], scale: float | Tensor, attention: Attention = attention
    ) -> Tensor:
        """The visual tokens after both gated residuals.

        Args:
            x: (B, N, width), the residual stream after the block's self-attention.
            face_kv: keys and values of `face_keys_values`, (B or 1, T, width), in the dtype and on the device of ``x``.
            scale: strength of both residuals: a number, or a tensor that broadcasts to (B, N, 1).
            attention: ``(q, k, v, heads) -> (B, N, width)``.

        Returns:
            (B, N, width); ``x`` itself is untouched.
        """
        visual = self.norm1(x)
        face_k, face_v = (part.expand(x.shape[0], -1, -1) for part in face_kv)
        k = torch.cat((self.attn.to_k(visual), face_k), dim=1)
        v = torch.cat((self.attn.to_v(visual), face_v), dim=1)
        attended = self.attn.to_out(attention(self.attn.to_q(visual), k, v, self.heads))
        x = x + attended * self._gate(self.alpha_attn, scale, x)
        return x + self.ff(self.norm2(x)) * self._gate(self.alpha_dense, scale, x)

    @staticmethod
    def _gate(alpha: Tensor, scale: float | Tensor, x: Tensor) -> Tensor:
        return (alpha.to(x.device).float().tanh() * scale).to(x.dtype)
