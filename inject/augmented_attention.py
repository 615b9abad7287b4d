"""AM-Adapter on a MODEL: each self-attention of the positive rows also attends to the exemplar's tokens.

The negative rows attend to themselves alone; their logits towards the exemplar still count for the matcher's maximum,
as in the authors' code, where both rows pass through one batch. If the host gives them a call of their own, the maximum
is that of the positive rows. Each picture of a batch is computed as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.am_adapter.arch import FoldedLayer, Matcher
from ..adapters.families.am_adapter.attention import GRID, MatchBias, Mode, agreement_at, attend, hard_bias, soft_bias
from ..faces.errors import LikenessError
from . import beneath
from .call_state import call_state
from .exemplar_pass import BANKS_KEY, Key
from .masks import LatentMask
from .memo import Memo
from .rows import POSITIVE, row_pattern
from .shared import Shared

SLOT = "attn1"


@dataclass(frozen=True, eq=False)
class Matching(Shared):
    """What all layers share.

    Attributes:
        matcher: the network, of which ``hard`` needs none; its weights are folded once for each device.
        same: agreement of the maps (1, M, M), see `maps.agreement`.
        mode: ``soft`` corrects the logits by the matcher, ``hard`` lets only places of one class see each other.
        strength: share of the augmented attention in the result; officially 1.
        mask: where it acts, or None.
        grid: largest side of the token grid that is not resized.
    """

    matcher: Matcher | None
    same: Tensor
    mode: Mode = "soft"
    strength: float = 1.0
    mask: LatentMask | None = None
    grid: int = GRID
    _layers: Memo[tuple[FoldedLayer, ...]] = field(default_factory=lambda: Memo(limit=2), repr=False)
    _same: Memo[Tensor] = field(default_factory=lambda: Memo(limit=8), repr=False)

    @property
    def whole(self) -> bool:
        """Whether the augmented attention stands alone, with nothing of the plain one mixed in."""
        return self.strength == 1.0 and self.mask is None

    def bias(self, q: Tensor, bank_k: Tensor, heads: int) -> MatchBias:
        """The correction for all rows (B, L, C) of one picture.

        Raises:
            LikenessError: the mode ``soft`` without a matcher.
        """
        tokens, device = min(q.shape[1], self.grid * self.grid), q.device
        same = self._same.get((tokens, device), lambda: agreement_at(self.same.to(device), tokens))
        if self.mode == "hard":
            return hard_bias(same, q.shape[1], self.grid)
        return soft_bias(q, bank_k, heads, self._layers.get(device, lambda: self._folded(device)), same, self.grid)

    def _folded(self, device: torch.device) -> tuple[FoldedLayer, ...]:
        if self.matcher is None:
            raise LikenessError(
                "AM-Adapter",
                expected="a matcher for the mode soft",
                found="none",
                cure="connect one, or set mode to hard",
            )
        return self.matcher.folded(device)


@dataclass(frozen=True, eq=False)
class AugmentedAttention(Shared):
    """The patch in one layer's attn1 slot.

    Attributes:
        key: the layer's key in the host's table, by which the exemplar's bank is found.
        attention: the host's attention module of this layer, for its projections.
        matching: shared by all layers.
        previous: the patch found in the slot, which still serves wherever this one does not act, or None.
    """

    key: Key
    attention: torch.nn.Module
    matching: Matching
    previous: Callable[..., Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        state = call_state(extra)
        if state is not None:
            state.mark(SLOT, self.key)
        banks = extra.get(BANKS_KEY)
        pattern, _ = row_pattern(extra, q.shape[0])
        if banks is None or POSITIVE not in pattern:
            return self._plain(q, k, v, extra, **kwargs)
        augmented = self._augmented(q, k, v, banks[self.key].to(q), pattern, extra["n_heads"])
        if self.matching.whole and self.previous is None:
            parts = zip(*(x.chunk(len(pattern)) for x in (q, k, v)), strict=True)
            out = [augmented[i] if i in augmented else self._plain(a, b, c, extra) for i, (a, b, c) in enumerate(parts)]
        else:
            plain = self._plain(q, k, v, extra, **kwargs).chunk(len(pattern))
            out = [self._blended(own, augmented.get(i), extra) for i, own in enumerate(plain)]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _plain(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        return beneath.attention(self.previous, q, k, v, extra, **kwargs)

    def _augmented(
        self, q: Tensor, k: Tensor, v: Tensor, bank: Tensor, pattern: Sequence[int], heads: int
    ) -> dict[int, Tensor]:
        """The rows (R, L, C) of each positive chunk by its number."""
        check_tokens(q.shape[1], bank.shape[1])
        bank_k, bank_v = (self.attention.get_submodule(name)(bank) for name in ("to_k", "to_v"))
        pictures = q.shape[0] // len(pattern)
        done: dict[int, list[Tensor]] = {chunk: [] for chunk, row in enumerate(pattern) if row == POSITIVE}
        for picture in range(pictures):
            # The rows of one picture: one of each chunk.
            own = slice(picture, None, pictures)
            bias = self.matching.bias(q[own], bank_k, heads)
            for chunk, rows in done.items():
                at = slice(chunk * pictures + picture, chunk * pictures + picture + 1)
                keys = (bank_k[chunk : chunk + 1], bank_v[chunk : chunk + 1])
                rows.append(attend(q[at], k[at], v[at], *keys, heads, bias.row(chunk)))
        return {chunk: rows[0] if len(rows) == 1 else torch.cat(rows) for chunk, rows in done.items()}

    def _blended(self, plain: Tensor, augmented: Tensor | None, extra: Mapping[str, Any]) -> Tensor:
        """Mix both by strength and mask; what is outside the mask stays as it was, to the last bit."""
        if augmented is None:
            return plain
        if self.matching.whole:
            return augmented
        added = augmented - plain
        if self.matching.mask is None:
            return torch.add(plain, added, alpha=self.matching.strength)
        return torch.addcmul(plain, added, self.matching.mask.rows(plain, 1, extra), value=self.matching.strength)


def check_tokens(tokens: int, bank: int) -> None:
    """Both grids must be the same square.

    Raises:
        LikenessError: they are not.
    """
    if tokens != bank or int(tokens**0.5) ** 2 != tokens:
        raise LikenessError(
            "AM-Adapter",
            expected="square pictures of the exemplar's size",
            found=f"{tokens} tokens of the picture and {bank} of the exemplar",
            cure="make the latent square and of the exemplar's size, such as 512 x 512",
        )
