"""A gated layer between attn1 and attn2 of every transformer block, as FACT (and GLIGEN before it) has it.

The host calls a "middle patch" exactly there, on the raw residual stream; attn2 slots cannot reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import host
from .call_state import call_state
from .managed import ManagedNetwork
from .memo import Memo
from .row_values import Pair
from .rows import POSITIVE, row_pattern
from .shared import Shared
from .term import Term

if TYPE_CHECKING:
    from ..adapters.layers.gated_attention import GatedSelfAttention

SLOT = "middle"
LayerKey = tuple[str, int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class GatedTerm(Term):
    """One identity's gated layers; the strength multiplies both gates outside their tanh.

    Attributes:
        layers: index in ``keys_values`` and module, by the host's layer key.
        network: the managed weights of the layers.
    """

    layers: Mapping[LayerKey, tuple[int, GatedSelfAttention]]
    network: ManagedNetwork

    def __post_init__(self) -> None:
        object.__setattr__(self, "_repeated", Memo[Pair](limit=2 * len(self.layers)))

    def apply(self, x: Tensor, key: LayerKey, extra: Mapping[str, Any]) -> Tensor:
        """Return the hidden state (B, N, C) after this identity's layer."""
        if not self.acts(extra):
            return x
        pattern, per_chunk = row_pattern(extra, x.shape[0])
        if not self.positive_only:
            return self._rows(x, pattern, per_chunk, key, extra)
        chunks = zip(pattern, x.chunk(len(pattern)), strict=True)
        return torch.cat([self._rows(h, (row,), per_chunk, key, extra) if row == POSITIVE else h for row, h in chunks])

    def _rows(
        self, x: Tensor, pattern: tuple[int, ...], per_chunk: int, key: LayerKey, extra: Mapping[str, Any]
    ) -> Tensor:
        index, layer = self.layers[key]
        face = self._face_rows(index, pattern, per_chunk, x)
        out = layer(x, face, self.strength, attention=lambda q, k, v, heads: host.attention(q, k, v, heads, extra))
        if self.mask is None:
            return out
        return torch.addcmul(x, out - x, self.mask.rows(x, len(pattern), extra))

    def _face_rows(self, index: int, pattern: tuple[int, ...], per_chunk: int, x: Tensor) -> Pair:
        k, v = self.keys_values.rows(index, pattern, x)
        if per_chunk == 1:
            return k, v
        repeated: Memo[Pair] = self._repeated  # type: ignore[attr-defined]
        key = (index, pattern, per_chunk, x.dtype, x.device)
        return repeated.get(key, lambda: (k.repeat_interleave(per_chunk, 0), v.repeat_interleave(per_chunk, 0)))


@dataclass(frozen=True, eq=False)
class IdentityGate(Shared):
    """The middle patch of all layers.

    Attributes:
        terms: the identities that act, in the order they were applied (gated layers do not commute).
    """

    terms: tuple[GatedTerm, ...]

    def models(self) -> list[Any]:
        """Patchers that hosts since 0.3.52 load together with the model."""
        return [term.network.patcher for term in self.terms]

    def __call__(self, x: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        block = extra.get("block")
        if block is None:
            return x
        key = (block[0], block[1], extra.get("block_index", 0))
        for term in self.terms:
            if key in term.layers:
                x = term.apply(x, key, extra)
                state = call_state(extra)
                if state is not None:
                    state.mark(SLOT, key)
        return x

    def with_term(self, term: GatedTerm) -> IdentityGate:
        """A patch with the term added, in place of one with the same key."""
        if any(old.key == term.key for old in self.terms):
            return IdentityGate(tuple(term if old.key == term.key else old for old in self.terms))
        return IdentityGate((*self.terms, term))


def gated_patches(found: list[Any], term: GatedTerm) -> list[Any]:
    """The middle patches with the term in: within our own patch where there is one, else after the others."""
    if any(isinstance(patch, IdentityGate) for patch in found):
        return [patch.with_term(term) if isinstance(patch, IdentityGate) else patch for patch in found]
    return [*found, IdentityGate((term,))]
