"""Identity attention beside text cross-attention (attn2): ``out = A(q, k_text, v_text) + w * mask * A(q, K_id, V_id)``.

Follows IP-Adapter (Ye et al. 2023, arXiv:2308.06721) and everything built on it. Keys and values of the identity are
constants of a sampling run, so they are projected once; a layer then costs one attention and one fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import beneath, host
from .call_state import call_state
from .memo import Memo
from .orthogonal import OrthogonalTerm
from .residual_attention import ResidualTerm, ResidualTerms
from .rows import POSITIVE, row_pattern
from .shared import Shared
from .stacked import StackedTerms, can_stack
from .term import Term

SLOT = "attn2"
AttentionPatch = Callable[..., Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionTerm(Term):
    """One identity's contribution to all attn2 layers."""

    def add(self, out: Tensor, q: Tensor, layer: int, extra: Mapping[str, Any]) -> Tensor:
        """Return ``out`` (B, N, C) with this identity's attention added; ``q`` is (B, N, C)."""
        pattern, _ = row_pattern(extra, q.shape[0])
        if not self.positive_only:
            return self._add_rows(out, q, pattern, layer, extra)
        chunks = zip(pattern, out.chunk(len(pattern)), q.chunk(len(pattern)), strict=True)
        return torch.cat([self._add_rows(o, p, (row,), layer, extra) if row == POSITIVE else o for row, o, p in chunks])

    def _add_rows(
        self, out: Tensor, q: Tensor, pattern: tuple[int, ...], layer: int, extra: Mapping[str, Any]
    ) -> Tensor:
        k, v = self.keys_values.rows(layer, pattern, q)
        chunks, (batch, tokens, width) = len(pattern), q.shape
        # All rows of a chunk share their keys, so they can stand side by side as queries of one row: nothing is
        # repeated.
        folded = q.reshape(chunks, batch // chunks * tokens, width)
        term = host.attention(folded, k, v, extra["n_heads"], extra).view(batch, tokens, width)
        if self.mask is None:
            return torch.add(out, term, alpha=self.strength)
        return torch.addcmul(out, term, self.mask.rows(term, chunks, extra), value=self.strength)


AnyTerm = AttentionTerm | OrthogonalTerm | ResidualTerm


@dataclass(frozen=True, eq=False)
class IdentityAttention(Shared):
    """The patch in one layer's attn2 slot.

    Attributes:
        layer: index of the layer in file order.
        terms: the identities that act here.
        previous: the patch of another pack that was found in the slot and is still called, or None.
    """

    layer: int
    terms: tuple[AnyTerm, ...]
    previous: AttentionPatch | None = None
    _stacks: Memo[StackedTerms] = field(default_factory=lambda: Memo(limit=2), repr=False)
    _residuals: Memo[ResidualTerms] = field(default_factory=lambda: Memo(limit=2), repr=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        out = beneath.attention(self.previous, q, k, v, extra, **kwargs)
        state = call_state(extra)
        if state is not None:
            state.mark(SLOT, self.layer)
        return self._add_residuals(self._add_projected(self._add_terms(out, q, extra), out, q, extra), out, extra)

    def _add_terms(self, out: Tensor, q: Tensor, extra: Mapping[str, Any]) -> Tensor:
        acting = [term for term in self.terms if isinstance(term, AttentionTerm) and term.acts(extra)]
        if can_stack(acting):
            key = tuple(term.key for term in acting)
            return self._stacks.get(key, lambda: StackedTerms(acting, self.layer)).add(out, q, extra)
        for term in acting:
            out = term.add(out, q, self.layer, extra)
        return out

    def _add_projected(self, out: Tensor, text: Tensor, q: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """Add what is measured against the text attention ``text``."""
        for term in self.terms:
            if isinstance(term, OrthogonalTerm) and term.acts(extra):
                out = term.add(out, text, q, self.layer, extra)
        return out

    def _add_residuals(self, out: Tensor, text: Tensor, extra: Mapping[str, Any]) -> Tensor:
        """Add what depends on the text attention ``text``, which no other identity's term has entered."""
        acting = [term for term in self.terms if isinstance(term, ResidualTerm) and term.acts(extra)]
        if not acting:
            return out
        key = tuple(term.key for term in acting)
        return self._residuals.get(key, lambda: ResidualTerms(acting, self.layer)).add(out, text, extra)

    def with_term(self, term: AnyTerm) -> IdentityAttention:
        """A patch with the term added, in place of one with the same key."""
        others = tuple(old for old in self.terms if old.key != term.key)
        return IdentityAttention(self.layer, (*others, term), self.previous)


def attention_patch(found: Any, layer: int, term: AnyTerm) -> IdentityAttention:
    """The patch for a slot in which ``found`` stands (None, ours, or another pack's callable)."""
    if isinstance(found, IdentityAttention):
        return found.with_term(term)
    return IdentityAttention(layer, (term,), found)
