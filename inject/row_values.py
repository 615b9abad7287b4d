"""Tensors that differ between positive and negative rows, arranged for whatever order of rows the host chooses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .memo import Memo
from .rows import NEGATIVE, POSITIVE
from .shared import Shared

Pair = tuple[Tensor, Tensor]


class RowKeysValues(Shared):
    """Keys and values of one identity in every layer, for positive and negative rows.

    They are kept once, as (2, T, C) in the host's usual order (negative, positive), in the dtype and on the device
    they are used in; usual patterns of rows are views of that. Other patterns, dtypes and devices are made when asked
    for and kept in a bounded memo.

    Args:
        positive: one (keys, values) pair of (1, T, C) for each layer.
        negative: the same for negative rows.
    """

    def __init__(self, positive: Sequence[Pair], negative: Sequence[Pair]) -> None:
        self._stored: tuple[Pair, ...] = tuple(
            (torch.cat((nk, pk)).contiguous(), torch.cat((nv, pv)).contiguous())
            for (pk, pv), (nk, nv) in zip(positive, negative, strict=True)
        )
        self._memo: Memo[Pair] = Memo(limit=4 * len(self._stored))

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def tokens(self) -> int:
        """Number of tokens T."""
        return int(self._stored[0][0].shape[1])

    @property
    def bytes(self) -> int:
        """Size of what is kept."""
        return sum(tensor.numel() * tensor.element_size() for pair in self._stored for tensor in pair)

    def rows(self, layer: int, pattern: tuple[int, ...], like: Tensor) -> Pair:
        """Keys and values (len(pattern), T, C) of a layer for a pattern of chunks, as ``like`` is typed and placed."""
        k, v = self._stored[layer]
        if k.dtype == like.dtype and k.device == like.device:
            view = _view(pattern)
            if view is not None:
                return k[view], v[view]
        key = (layer, pattern, like.dtype, like.device)
        return self._memo.get(key, lambda: (_arranged(k, pattern, like), _arranged(v, pattern, like)))


def _view(pattern: tuple[int, ...]) -> slice | None:
    """The slice of (negative, positive) that is the pattern, or None where rows must be copied."""
    return {(NEGATIVE, POSITIVE): slice(0, 2), (NEGATIVE,): slice(0, 1), (POSITIVE,): slice(1, 2)}.get(pattern)


def _arranged(stored: Tensor, pattern: tuple[int, ...], like: Tensor) -> Tensor:
    halves = {NEGATIVE: stored[0:1], POSITIVE: stored[1:2]}
    return torch.cat([halves[row] for row in pattern]).to(device=like.device, dtype=like.dtype)
