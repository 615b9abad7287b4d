"""Modulations inside a residual block of the UNet. Attribute names are the checkpoint's key names: do not rename them.

Follows RestorerID (Ying et al. 2024, arXiv:2411.14125; official repository YingJiacheng/RestorerID), which took the
first from StableSR. Quirks the checkpoints depend on: both norms carry weight and bias despite their name; the first
modulation is ``norm * (1 + gamma) + beta`` and acts before the skip is added; the second (FIR-Adapter) is
``norm * gamma + beta``, is computed of the sum and added to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...layers import casting
from ...layers.attention import Attention, attention
from ...layers.casting_conv import Conv2d, GroupNorm32

HEADS = 8
Pair = tuple[Tensor, Tensor]


class Modulation(nn.Module):
    """Scale and shift of a feature map, predicted from another map of the same size.

    Args:
        channels: of the map that is modulated.
        labels: channels of the map it is predicted from (256).
        hidden: channels in between (128).
    """

    def __init__(self, channels: int, labels: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.param_free_norm = GroupNorm32(channels)
        self.mlp_shared = nn.Sequential(Conv2d(labels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = Conv2d(hidden, channels, 3, padding=1)

    def factors(self, labels: Tensor) -> Pair:
        """Maps (B, labels, H, W) give gamma and beta, each (B, channels, H, W)."""
        actv = self.mlp_shared(labels)
        return self.mlp_gamma(actv), self.mlp_beta(actv)


class Spade(Modulation):
    """The structure's modulation, key prefix ``spade``."""

    def forward(self, x: Tensor, structure: Tensor) -> Tensor:
        """Feature map x (R, C, H, W) and structure (M, labels, H, W); row r takes map r % M, R a multiple of M."""
        gamma, beta = self.factors(structure)
        normed = self.param_free_norm(x).unflatten(0, (-1, gamma.shape[0]))
        return (normed * (1 + gamma) + beta).flatten(0, 1)


class FirAttention(nn.Module):
    """Cross-attention from places of the structure to reference tokens, 8 heads."""

    def __init__(self, width: int, context_dim: int) -> None:
        super().__init__()
        self.to_q = casting.Linear(width, width, bias=False)
        self.to_k = casting.Linear(context_dim, width, bias=False)
        self.to_v = casting.Linear(context_dim, width, bias=False)
        self.to_out = nn.ModuleList([casting.Linear(width, width)])

    def keys_values(self, tokens: Tensor) -> Pair:
        """Reference tokens (B, T, context_dim) give keys and values (B, T, width)."""
        return self.to_k(tokens), self.to_v(tokens)

    def forward(self, x: Tensor, keys_values: Pair, attend: Attention = attention) -> Tensor:
        """x (M, N, width) and keys and values (R, T, width), R a multiple of M, give (R, N, width)."""
        k, v = keys_values
        q = self.to_q(x).repeat(k.shape[0] // x.shape[0], 1, 1)
        return self.to_out[0](attend(q, k, v, HEADS))


class IDBalance(Modulation):
    """The FIR-Adapter, key prefix ``IDBalance``: modulates by structure and reference together.

    Args:
        channels, labels, hidden: see `Modulation`.
        context_dim: channels of a reference token (768).
    """

    def __init__(self, channels: int, labels: int, hidden: int, context_dim: int) -> None:
        super().__init__(channels, labels, hidden)
        self.norm = casting.LayerNorm(labels)
        self.crossattn = FirAttention(labels, context_dim)

    def is_constant(self) -> bool:
        """Whether the shared convolution gives zeros for every input.

        The published training code starts it at zero, where its gradients stay zero for ever; the branch is then
        ``norm * gamma.bias + beta.bias``, the same for every picture and reference.
        """
        first = self.mlp_shared[0]
        assert isinstance(first, Conv2d)
        silent = first.bias is None or bool((first.bias <= 0).all())
        return silent and not bool(first.weight.any())

    def constant(self, h: Tensor) -> Tensor:
        """What ``forward`` gives where `is_constant`, without its attention and convolutions: (R, C, H, W)."""
        gamma, beta = (layer.bias for layer in (self.mlp_gamma, self.mlp_beta))
        assert gamma is not None
        assert beta is not None
        normed = self.param_free_norm(h)
        return torch.addcmul(beta.to(normed)[:, None, None], normed, gamma.to(normed)[:, None, None])

    def forward(self, h: Tensor, structure: Tensor, keys_values: Pair, attend: Attention = attention) -> Tensor:
        """The term that is added to h.

        Args:
            h: (chunks * B, C, H, W).
            structure: (M, labels, H, W), M being 1 or B.
            keys_values: of the reference tokens, each (chunks * P, T, labels); P is 1 or B, a multiple of M.
            attend: the attention function.

        Returns:
            (chunks * B, C, H, W).
        """
        rows = keys_values[0].shape[0]
        tokens = structure.flatten(2).transpose(1, 2)
        mixed = tokens.repeat(rows // tokens.shape[0], 1, 1) + self.crossattn(self.norm(tokens), keys_values, attend)
        gamma, beta = self.factors(mixed.transpose(1, 2).unflatten(2, structure.shape[2:]))
        # Rows of one chunk stand together; each of a chunk's tokens serves all its pictures, or its own.
        normed = self.param_free_norm(h).unflatten(0, (rows, -1))
        return (normed * gamma[:, None] + beta[:, None]).flatten(0, 1)
