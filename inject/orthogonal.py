"""PuLID's projections beside text cross-attention: the identity changes the person and leaves the rest to the prompt.

The formulas stand in ``adapters/families/pulid_sdxl/projection.py``; this is the same in eight operations a layer:

* the strength is folded into the values, once;
* ``a - 1``, the share of the face tokens less one, is an attention of its own: keys times sqrt(d) undo the scale of the
  softmax, and values of 0 for the face tokens and -1 / heads for all others sum up what is asked for, in every channel
  of a head alike; one channel of each head is enough, and the sum over heads is part of the last product;
* both sums over the picture tokens are taken together, in float32 whatever the model runs in.

The sums run over all tokens of a row, masked or not: a mask limits what is added, not what it is measured against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.pulid_sdxl.projection import FACE_TOKENS, Projection
from . import host
from .memo import Memo
from .rows import POSITIVE, row_pattern
from .term import Term

# Added to the text attention's own sum of squares: far below it, except where a channel is zero everywhere.
TINY = 1e-20


@dataclass(frozen=True, eq=False)
class _Constants:
    """What a layer needs of an identity: all of it independent of the picture.

    Attributes:
        k, v: keys, and values times the strength.
        sharp_k: keys times the square root of a head's channels; None without the share of the face tokens.
        others: values that sum up the share of all but the face tokens, times -1 / heads.
        floor: (2, 1, 1, 1) float32, what is added to both products.
        one: (1, 1, 1).
    """

    k: Tensor
    v: Tensor
    sharp_k: Tensor | None
    others: Tensor | None
    floor: Tensor
    one: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class OrthogonalTerm(Term):
    """One identity's contribution to all attn2 layers, less its part along the text attention.

    Attributes:
        projection: style or fidelity.
    """

    projection: Projection

    def __post_init__(self) -> None:
        memo: Memo[_Constants] = Memo(limit=2 * len(self.keys_values))
        shared: Memo[Tensor] = Memo(limit=8)
        object.__setattr__(self, "_memo", memo)
        object.__setattr__(self, "_shared", shared)

    def add(self, out: Tensor, text: Tensor, q: Tensor, layer: int, extra: Mapping[str, Any]) -> Tensor:
        """Return ``out`` (B, N, C) with this identity's part added.

        Args:
            out: (B, N, C) the sum so far; ``text`` itself where this is the first term.
            text: (B, N, C) the text attention, which no identity has entered.
            q: (B, N, C) the layer's queries.
            layer: index of the layer in file order.
            extra: the call's options.
        """
        pattern, _ = row_pattern(extra, q.shape[0])
        if not self.positive_only:
            return self._add_rows(out, text, q, pattern, layer, extra)
        parts = [x.chunk(len(pattern)) for x in (out, q)]
        texts = parts[0] if out is text else text.chunk(len(pattern))
        rows = zip(pattern, parts[0], texts, parts[1], strict=True)
        return torch.cat(
            [self._add_rows(o, t, p, (row,), layer, extra) if row == POSITIVE else o for row, o, t, p in rows]
        )

    def _add_rows(
        self, out: Tensor, text: Tensor, q: Tensor, pattern: tuple[int, ...], layer: int, extra: Mapping[str, Any]
    ) -> Tensor:
        heads = int(extra["n_heads"])
        made = self._constants(layer, pattern, heads, q)
        folded = q.reshape(len(pattern), -1, q.shape[-1])
        term = host.attention(folded, made.k, made.v, heads, extra).view_as(q)
        # Where nothing else stands in the sum, the text attention enters together with its own share.
        alone = out is text and self.mask is None
        factor = self._factor(folded, made, _share_along(text, term, made.floor), heads, float(alone), extra)
        term = torch.addcmul(term, text, factor)
        if alone:
            return term
        if self.mask is None:
            return out + term
        return torch.addcmul(out, term, self.mask.rows(term, len(pattern), extra))

    def _factor(
        self, folded: Tensor, made: _Constants, share: Tensor, heads: int, start: float, extra: Mapping[str, Any]
    ) -> Tensor:
        """``start`` plus what the text attention is multiplied by: -share (style), (a - 1) * share (fidelity)."""
        if made.sharp_k is None or made.others is None:
            return start - share
        batch, _, width = share.shape
        less = host.attention(folded, made.sharp_k, made.others, heads, extra)
        less = less.view(batch, -1, width)[..., :: width // heads]
        return torch.baddbmm(made.one, less, share.expand(-1, heads, -1), beta=start)

    def _constants(self, layer: int, pattern: tuple[int, ...], heads: int, like: Tensor) -> _Constants:
        memo: Memo[_Constants] = self._memo  # type: ignore[attr-defined]
        key = (layer, pattern, heads, like.dtype, like.device)
        return memo.get(key, lambda: self._made(layer, pattern, heads, like))

    def _made(self, layer: int, pattern: tuple[int, ...], heads: int, like: Tensor) -> _Constants:
        k, v = self.keys_values.rows(layer, pattern, like)
        floor = torch.tensor([TINY, 0.0], device=like.device).view(2, 1, 1, 1)
        one = like.new_ones(1, 1, 1)
        values = v if self.strength == 1.0 else v * self.strength
        if self.projection is not Projection.FIDELITY:
            return _Constants(k, values, None, None, floor, one)
        others = self._others(k.shape[1], k.shape[2], heads, like).expand_as(k)
        return _Constants(k, values, k * (k.shape[-1] // heads) ** 0.5, others, floor, one)

    def _others(self, tokens: int, width: int, heads: int, like: Tensor) -> Tensor:
        """(1, T, C), one for all layers of a width; written out, since attention kernels want dense channels."""

        def made() -> Tensor:
            others = like.new_full((1, tokens, width), -1.0 / heads)
            others[:, :FACE_TOKENS] = 0.0
            return others

        memo: Memo[Tensor] = self._shared  # type: ignore[attr-defined]
        return memo.get((tokens, width, heads, like.dtype, like.device), made)


def _share_along(text: Tensor, term: Tensor, floor: Tensor) -> Tensor:
    """How much of ``term`` lies along ``text``, channel by channel: (B, 1, C) in their dtype."""
    products = torch.addcmul(floor, torch.stack((text, term)), text)
    own, common = products.sum(-2, keepdim=True)
    return (common / own).to(text.dtype)
