"""Attention whose queries are made of the text attention's result z (the W+ adapter): ``z + w * mask * R(z)``.

Follows ``attention_processor.py`` of w-plus-adapter (Li et al. 2024, arXiv:2311.17461). Its query map and its keys are
folded into one constant of identity and layer (see `ResidualAttentionAdapter`), so that a layer costs two matrix
products and a softmax, however many identities act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .masks import frame_window
from .memo import Memo
from .row_values import Pair
from .rows import NEGATIVE, row_pattern
from .shared import Shared
from .term import Term


@dataclass(frozen=True, eq=False, kw_only=True)
class ResidualTerm(Term):
    """One identity's residual attention in all attn2 layers; ``keys_values`` holds folded logits' weights and values,
    each (heads * T, width).
    """


class ResidualTerms(Shared):
    """The residual terms of one layer, side by side in one product.

    Args:
        terms: what acts in the layer at this step.
        layer: index of the layer in file order.
    """

    def __init__(self, terms: Sequence[ResidualTerm], layer: int) -> None:
        self._terms = tuple(terms)
        self._layer = layer
        self._pairs: Memo[Pair] = Memo(limit=4)
        self._masks: Memo[Tensor] = Memo(limit=4)
        self._masked = any(term.mask is not None for term in terms)

    def add(self, out: Tensor, text: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """Return ``out`` (B, N, C) with every term added; ``text`` (B, N, C) is the text attention's result."""
        pattern, _ = row_pattern(extra, text.shape[0])
        chunks, (batch, tokens, width) = len(pattern), text.shape
        logits, values = self._pairs.get((pattern, text.dtype, text.device), lambda: self._arranged(pattern, text))
        folded = (chunks, batch // chunks * tokens, width)
        # One row of weights holds identities x heads x tokens; each head's tokens share a softmax.
        each = self._tokens(extra)
        weights = torch.bmm(text.reshape(folded), logits.transpose(1, 2))
        weights = weights.unflatten(-1, (-1, each)).softmax(-1).flatten(-2)
        if self._masked:
            weights = weights * self._mask(text, chunks, extra).reshape(chunks, folded[1], -1)
        return torch.baddbmm(out.reshape(folded), weights, values).view(batch, tokens, width)

    def _tokens(self, extra: Mapping[str, Any]) -> int:
        return self._terms[0].keys_values.tokens // int(extra["n_heads"])

    def _arranged(self, pattern: tuple[int, ...], like: Tensor) -> Pair:
        """Logits' weights and values times strength, (chunks, terms * heads * T, width)."""
        logits, values = [], []
        for term in self._terms:
            k, v = term.keys_values.rows(self._layer, pattern, like)
            silent = [term.positive_only and row == NEGATIVE for row in pattern]
            factors = [0.0 if quiet else term.strength for quiet in silent]
            logits.append(k)
            values.append(v * v.new_tensor(factors)[:, None, None])
        return torch.cat(logits, dim=1), torch.cat(values, dim=1)

    def _mask(self, like: Tensor, chunks: int, extra: Mapping[str, Any]) -> Tensor:
        """Each term's mask for each of its columns: (B, N, terms * heads * T)."""
        shape = tuple(extra.get("original_shape") or ())
        key = (shape, like.shape, chunks, frame_window(extra), like.dtype, like.device)
        return self._masks.get(key, lambda: self._columns(like, chunks, extra))

    def _columns(self, like: Tensor, chunks: int, extra: Mapping[str, Any]) -> Tensor:
        whole = like.new_ones(like.shape[0], like.shape[1], 1)
        columns = self._terms[0].keys_values.tokens
        masks = [whole if term.mask is None else term.mask.rows(like, chunks, extra) for term in self._terms]
        return torch.cat([mask.expand_as(whole).expand(-1, -1, columns) for mask in masks], dim=-1)
