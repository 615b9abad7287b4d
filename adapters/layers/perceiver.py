"""Perceiver blocks as IP-Adapter published them; ID-Animator, InstantID, FaceChain-FACT and
PhotoMaker use the same ones.

Attribute names are the checkpoints' key names, so do not rename them:
``latents proj_in proj_out norm_out layers.{i}.0.{norm1,norm2,to_q,to_kv,to_out} layers.{i}.1.{0,1,3}``.

Follows the official ``ip_adapter/resampler.py``. The quirks the checkpoints depend on: keys and values come from the
context and the latents together, context first; none of the four attention weights and neither feed-forward weight has
a bias; the logits are scaled on both sides and the softmax runs in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PerceiverAttention(nn.Module):
    """Latents attend to context and latents.

    Args:
        width: channels of context, latents and output.
        heads: number of heads.
        head_dim: channels of a head; ``heads * head_dim`` need not be ``width``.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, width: int, heads: int, head_dim: int, operations: Any = nn) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.norm1 = operations.LayerNorm(width)
        self.norm2 = operations.LayerNorm(width)
        self.to_q = operations.Linear(width, inner, bias=False)
        self.to_kv = operations.Linear(width, 2 * inner, bias=False)
        self.to_out = operations.Linear(inner, width, bias=False)

    def forward(self, context: Tensor, latents: Tensor) -> Tensor:
        """Context (B, S, width) and latents (B, T, width) give (B, T, width)."""
        context, latents = self.norm1(context), self.norm2(latents)
        q = self._split(self.to_q(latents))
        k, v = self.to_kv(torch.cat((context, latents), dim=1)).chunk(2, dim=-1)
        k, v = self._split(k), self._split(v)
        # q and k are scaled one by one, and not their product, because that is safe in float16.
        scale = q.shape[-1] ** -0.25
        weights = ((q * scale) @ (k * scale).transpose(-2, -1)).float().softmax(dim=-1).to(v.dtype)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """LayerNorm, linear, exact GELU, linear: (B, T, width) -> (B, T, width); keys 0, 1 and 3."""

    def __init__(self, width: int, inner: int, operations: Any = nn) -> None:
        super().__init__(
            operations.LayerNorm(width),
            operations.Linear(width, inner, bias=False),
            nn.GELU(),
            operations.Linear(inner, width, bias=False),
        )


class PerceiverLayers(nn.ModuleList):
    """Pairs of attention and feed-forward with residuals; the context is the same for every layer.

    Args:
        width: channels of context and latents.
        depth: number of layers.
        heads: heads of each attention.
        head_dim: channels of a head.
        feed_forward: inner channels of each feed-forward.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self, width: int, depth: int, heads: int, head_dim: int, feed_forward: int, operations: Any = nn
    ) -> None:
        super().__init__(
            nn.ModuleList(
                (PerceiverAttention(width, heads, head_dim, operations), FeedForward(width, feed_forward, operations))
            )
            for _ in range(depth)
        )

    def forward(self, context: Tensor, latents: Tensor) -> Tensor:
        """Context (B, S, width) and latents (B, T, width) give latents (B, T, width)."""
        pairs: list[Any] = list(self)
        for attend, feed_forward in pairs:
            latents = attend(context, latents) + latents
            latents = feed_forward(latents) + latents
        return latents


class Resampler(nn.Module):
    """Turns any number of tokens into a fixed number by learned queries.

    Args:
        input_dim: channels of the incoming tokens.
        width: channels inside.
        output_dim: channels of the result.
        queries: number of tokens of the result.
        depth, heads, head_dim, feed_forward: see `PerceiverLayers`.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        width: int,
        output_dim: int,
        queries: int,
        depth: int,
        heads: int,
        head_dim: int,
        feed_forward: int,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, queries, width))
        self.proj_in = operations.Linear(input_dim, width)
        self.proj_out = operations.Linear(width, output_dim)
        self.norm_out = operations.LayerNorm(output_dim)
        self.layers = PerceiverLayers(width, depth, heads, head_dim, feed_forward, operations)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, input_dim) give (B, queries, output_dim)."""
        latents = self.latents.to(x).expand(x.shape[0], -1, -1)
        return self.norm_out(self.proj_out(self.layers(self.proj_in(x), latents)))


class FacePerceiver(nn.Module):
    """Refines face tokens by the patches of a CLIP vision model; its latents are those tokens, none are learned.

    Args:
        image_dim: channels of a patch.
        width: channels of a face token.
        depth: number of layers.
        heads: of each attention, ``width / heads`` wide.
        feed_forward: inner channels of each feed-forward.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self, image_dim: int, width: int, depth: int, heads: int, feed_forward: int, operations: Any = nn
    ) -> None:
        super().__init__()
        self.proj_in = operations.Linear(image_dim, width)
        self.proj_out = operations.Linear(width, width)
        self.norm_out = operations.LayerNorm(width)
        self.layers = PerceiverLayers(width, depth, heads, width // heads, feed_forward, operations)

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Face tokens (B, T, width) and patches (B, S, image_dim) give (B, T, width)."""
        return self.norm_out(self.proj_out(self.layers(self.proj_in(patches), tokens)))
