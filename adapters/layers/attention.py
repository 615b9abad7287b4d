"""The attention used where the host gives none of its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention with the heads side by side in the channels.

    Args:
        q: (B, N, C) queries.
        k: (B, T, C) keys.
        v: (B, T, C) values.
        heads: number of heads; C is divisible by it. The scale is ``(C / heads) ** -0.5``.

    Returns:
        (B, N, C).
    """
    batch, length, width = q.shape
    q, k, v = (x.view(batch, -1, heads, width // heads).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
