"""Mapper and residual attention of the W+ adapter (Li et al. 2024, arXiv:2311.17461).

Attribute names are the checkpoint's key names: ``proj_{0..3} norm`` and ``to_q_wplus to_k_wplus to_v_wplus``. Follows
``w_plus_adapter.py`` and ``attention_processor.py`` of the authors' code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...layers import casting

# Rows of the W+ code that make each token: coarse, middle, middle, fine styles.
ROWS = (4, 8, 12, 18)
# SD1.5 has eight heads in every attn2, and so has the residual attention.
HEADS = 8


class WPlusMapper(nn.Module):
    """A W+ code as four tokens: four groups of rows, each through a map of its own, and one shared norm.

    Args:
        style_dim: channels of a row of the code.
        width: channels of a token.
        rows: where each group of rows ends.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self, style_dim: int = 512, width: int = 768, rows: tuple[int, ...] = ROWS, operations: Any = nn
    ) -> None:
        super().__init__()
        self.rows = rows
        starts = (0, *rows[:-1])
        for number, (start, end) in enumerate(zip(starts, rows, strict=True)):
            self.add_module(f"proj_{number}", operations.Linear((end - start) * style_dim, width, bias=False))
        self.norm = operations.LayerNorm(width)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, rows, style_dim) give tokens (B, 4, width); zeros give the norm's bias."""
        starts = (0, *self.rows[:-1])
        tokens = [
            self.get_submodule(f"proj_{number}")(codes[:, start:end].flatten(1))
            for number, (start, end) in enumerate(zip(starts, self.rows, strict=True))
        ]
        return self.norm(torch.stack(tokens, dim=1))


class ResidualMaps(nn.Module):
    """The maps of the residual attention of one attn2 layer, without bias.

    Args:
        context_dim: channels of a token.
        width: channels of the layer.
        operations: namespace with Linear.
    """

    def __init__(self, context_dim: int, width: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.to_q_wplus = operations.Linear(width, width, bias=False)
        self.to_k_wplus = operations.Linear(context_dim, width, bias=False)
        self.to_v_wplus = operations.Linear(context_dim, width, bias=False)

    def forward(self, tokens: Tensor, heads: int = HEADS) -> tuple[Tensor, Tensor]:
        """Fold query map, keys and values of tokens (B, T, context_dim).

        Returns:
            (B, heads * T, width) twice: with text attention z (B, N, width), ``softmax_T(z @ first^T) @ second`` is the
            official attention of queries ``to_q_wplus(z)``. The query map is linear and the keys are constants, so
            their product is one too.
        """
        batch, count, _ = tokens.shape
        k, v = (to(tokens).view(batch, count, heads, -1).transpose(1, 2) for to in (self.to_k_wplus, self.to_v_wplus))
        query = self.to_q_wplus.weight.to(k).view(heads, -1, self.width)
        logits = torch.einsum("bhtd,hdc->bhtc", k * k.shape[-1] ** -0.5, query)
        spread = torch.einsum("bhtd,hg->bhtgd", v, torch.eye(heads, dtype=v.dtype, device=v.device))
        return logits.reshape(batch, -1, self.width), spread.reshape(batch, -1, self.width)


def residual(text: Tensor, logits: Tensor, values: Tensor, heads: int = HEADS) -> Tensor:
    """The residual attention of text attention ``text`` (B, N, width), with `ResidualMaps`' two results."""
    weights = (text @ logits.transpose(1, 2)).unflatten(-1, (heads, -1)).softmax(-1).flatten(-2)
    return weights @ values
