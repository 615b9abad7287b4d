"""Self-attention over a picture's own tokens and those of an exemplar, with logits corrected by the matcher.

Follows ``MatchAttnProcessor`` of AM-Adapter's ``src/models/attention_processor.py``. Its quirks, kept: the largest
correction of all rows is taken for every row; the maps' agreement enters transposed (see `maps`); above a grid of 32
the logits are resized as a matrix.

Resizing a matrix ``q k^T`` bilinearly is linear in its rows and in its columns, so q and k are resized instead: at 512
x 512 this spares a matrix of 4096 x 4096 numbers for each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .arch import FoldedLayer, match

Mode = Literal["soft", "hard"]
GRID = 32
# Numbers of a bias that are held at once: 128 MB in float32.
_AT_ONCE = 2**25
# From this many tokens on the rows of a batch pass through the matcher one by one.
_MANY_TOKENS = 1024


@dataclass(frozen=True, eq=False)
class MatchBias:
    """What is added to the logits towards the exemplar.

    Attributes:
        values: (B or 1, heads or 1, N, N), indexed [target, exemplar]; N is at most the square of the matcher's grid.
        smooth: whether a larger matrix is made bilinearly (soft) or of the nearest entries (hard).
    """

    values: Tensor
    smooth: bool

    def row(self, index: int) -> MatchBias:
        """The bias of one row."""
        return self if len(self.values) == 1 else MatchBias(self.values[index : index + 1], self.smooth)

    def block(self, heads: slice, queries: slice, tokens: int) -> Tensor:
        """The part for some heads and queries of a layer with ``tokens`` tokens: (B, heads, queries, tokens)."""
        values = self.values if self.values.shape[1] == 1 else self.values[:, heads]
        if values.shape[-1] == tokens:
            return values[:, :, queries]
        if self.smooth:
            rows = _linear(values.transpose(2, 3), tokens)[..., queries].transpose(2, 3)
            return _linear(rows, tokens)
        index = nearest(values.shape[-1], tokens, values.device)
        return values[:, :, index[queries]][..., index]


def soft_bias(
    q: Tensor, bank_k: Tensor, heads: int, layers: Sequence[FoldedLayer], same: Tensor, grid: int = GRID
) -> MatchBias:
    """The matcher's correction ``R - max(R) / 4``.

    Args:
        q: queries of the target (B, L, C).
        bank_k: keys of the exemplar (B, L, C).
        heads: attention heads; the matcher has a channel for each.
        layers: of `Matcher.folded`.
        same: agreement of the maps (B or 1, M, M), see `maps.agreement`.
        grid: the largest side of the token grid that is not resized.
    """
    tokens = min(q.shape[1], grid * grid)
    q, k = (_tokens_resized(x.float(), tokens) for x in (q, bank_k))
    channel = agreement_at(same, tokens).expand(len(q), -1, -1)
    at_once = len(q) if tokens < _MANY_TOKENS else 1
    parts = zip(q.split(at_once), k.split(at_once), channel.split(at_once), strict=True)
    found = _joined([_matched(*part[:2], heads, layers, part[2]) for part in parts], 0)
    return MatchBias(found - found.amax() / 4, smooth=True)


def hard_bias(same: Tensor, tokens: int, grid: int = GRID) -> MatchBias:
    """Minus infinity where the maps do not agree; ``same`` (B or 1, M, M) as for `soft_bias`."""
    at_grid = agreement_at(same, min(tokens, grid * grid))
    values = torch.zeros(at_grid.shape, device=at_grid.device).masked_fill(~at_grid.bool(), float("-inf"))
    return MatchBias(values[:, None], smooth=False)


def attend(
    q: Tensor, k: Tensor, v: Tensor, bank_k: Tensor, bank_v: Tensor, heads: int, bias: MatchBias | None
) -> Tensor:
    """Attention of (B, L, C) over its own keys and the exemplar's, in blocks of bounded memory; (B, L, C)."""
    rows, tokens, _ = q.shape
    q, k, v = (_by_head(x, heads) for x in (q, torch.cat((k, bank_k), 1), torch.cat((v, bank_v), 1)))
    if bias is None:
        return _merged(functional.scaled_dot_product_attention(q, k, v))
    heads_at_once = max(1, min(heads, _AT_ONCE // (rows * tokens * k.shape[2])))
    queries_at_once = max(1, min(tokens, _AT_ONCE // (rows * heads_at_once * k.shape[2])))
    groups = []
    for first in range(0, heads, heads_at_once):
        group = slice(first, first + heads_at_once)
        blocks = []
        for start in range(0, tokens, queries_at_once):
            queries = slice(start, start + queries_at_once)
            added = functional.pad(bias.block(group, queries, tokens).to(q.dtype), (tokens, 0))
            part = q[:, group, queries]
            blocks.append(functional.scaled_dot_product_attention(part, k[:, group], v[:, group], attn_mask=added))
        groups.append(_joined(blocks, 2))
    return _merged(_joined(groups, 1))


def agreement_at(same: Tensor, tokens: int) -> Tensor:
    """``same`` (B, M, M) as matrices of ``tokens`` rows and columns, by nearest entries."""
    if same.shape[-1] == tokens:
        return same
    index = nearest(same.shape[-1], tokens, same.device)
    return same[:, index][..., index]


def nearest(source: int, target: int, device: torch.device) -> Tensor:
    """Index of the source entry for each of ``target`` entries, as torch's nearest resizing chooses it."""
    return torch.arange(target, device=device) * source // target


def _matched(q: Tensor, k: Tensor, heads: int, layers: Sequence[FoldedLayer], same: Tensor) -> Tensor:
    """R (B, heads, N, N) for float32 q, k (B, N, C) and agreement (B, N, N)."""
    rows, tokens, width = q.shape
    side = int(tokens**0.5)
    q = q.view(rows, tokens, heads, width // heads).transpose(1, 2) * (width // heads) ** -0.5
    logits = q @ k.view(rows, tokens, heads, width // heads).permute(0, 2, 3, 1)
    pairs = torch.cat((logits.transpose(1, 2), same[:, :, None]), 2)
    return match(pairs.view(rows, tokens, heads + 1, side, side), layers).flatten(3).transpose(1, 2)


def _tokens_resized(x: Tensor, tokens: int) -> Tensor:
    return x if x.shape[1] == tokens else _linear(x.transpose(1, 2), tokens).transpose(1, 2)


def _linear(x: Tensor, size: int) -> Tensor:
    """Resize the last dimension linearly."""
    flat = x.reshape(1, -1, x.shape[-1])
    return functional.interpolate(flat, size=size, mode="linear", align_corners=False).view(*x.shape[:-1], size)


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
