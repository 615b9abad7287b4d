"""Three or more identities in one attention call: the cost of a step stays nearly flat as people are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import host
from .masks import frame_window
from .memo import Memo
from .row_values import Pair
from .rows import row_pattern
from .shared import Shared

if TYPE_CHECKING:
    from .attention import AttentionTerm

# Two identities cost two operations each one after the other; stacking costs five whatever their number.
FEWEST = 3


def can_stack(terms: Sequence[AttentionTerm]) -> bool:
    """Whether the terms fit into one call: enough of them, of one number of tokens, on all rows."""
    tokens = {term.keys_values.tokens for term in terms}
    return len(terms) >= FEWEST and len(tokens) == 1 and not any(term.positive_only for term in terms)


class StackedTerms(Shared):
    """The identities of one layer, stacked on the batch axis.

    Args:
        terms: what acts in the layer at this step.
        layer: index of the layer in file order.
    """

    def __init__(self, terms: Sequence[AttentionTerm], layer: int) -> None:
        self._terms = tuple(terms)
        self._layer = layer
        self._pairs: Memo[Pair] = Memo(limit=4)
        self._weights: Memo[Tensor] = Memo(limit=4)

    def add(self, out: Tensor, q: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """Return ``out`` (B, N, C) with every identity's attention added; ``q`` is (B, N, C)."""
        pattern, _ = row_pattern(extra, q.shape[0])
        count, chunks, (batch, tokens, width) = len(self._terms), len(pattern), q.shape
        k, v = self._pairs.get((pattern, q.dtype, q.device), lambda: self._stacked_pairs(pattern, q))
        folded = q.reshape(1, chunks, batch // chunks * tokens, width).expand(count, -1, -1, -1).flatten(0, 1)
        terms = host.attention(folded, k, v, extra["n_heads"], extra).view(count, batch, tokens, width)
        shape = tuple(extra.get("original_shape") or ())
        weights = self._weights.get(
            (shape, q.shape, chunks, frame_window(extra), q.dtype, q.device),
            lambda: self._stacked_weights(q, chunks, extra),
        )
        return out + (terms * weights).sum(0)

    def _stacked_pairs(self, pattern: tuple[int, ...], like: Tensor) -> Pair:
        pairs = [term.keys_values.rows(self._layer, pattern, like) for term in self._terms]
        return torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])

    def _stacked_weights(self, like: Tensor, chunks: int, extra: Mapping[str, Any]) -> Tensor:
        """Strength times mask of each identity: (identities, B, N, 1), or (identities, 1, 1, 1) without masks."""
        strengths = [like.new_full((1, 1, 1), term.strength) for term in self._terms]
        if all(term.mask is None for term in self._terms):
            return torch.stack(strengths)
        whole = like.new_ones(like.shape[0], like.shape[1], 1)
        masks = [whole if term.mask is None else term.mask.rows(like, chunks, extra) for term in self._terms]
        return torch.stack(
            [(mask * strength).expand_as(whole) for mask, strength in zip(masks, strengths, strict=True)]
        )
