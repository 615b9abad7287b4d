"""Starting and keeping alive a codebook: k-means, and new places for codes that nobody uses."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows per distance matrix.
_CHUNK = 1 << 14


def k_means(rows: Tensor, count: int, generator: torch.Generator, rounds: int = 10) -> Tensor:
    """Centres (count, C) of rows (N, C), by Lloyd's method from ``count`` random rows.

    A centre without rows takes a random one. Where there are fewer rows than centres, rows repeat with a little noise.
    """
    order = torch.randperm(len(rows), generator=generator)
    chosen = order.repeat(-(-count // len(rows)))[:count]
    centres = rows[chosen].clone()
    if count > len(rows):
        centres[len(rows) :] += 1e-3 * rows.std() * torch.randn(centres[len(rows) :].shape, generator=generator)
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(dim=1) for part in rows.split(_CHUNK)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        members = torch.bincount(nearest, minlength=count)
        empty = members == 0
        centres = sums / members.clamp(min=1)[:, None]
        centres[empty] = rows[torch.randint(len(rows), (int(empty.sum()),), generator=generator)]
    return centres


def perplexity(numbers: Tensor, count: int) -> Tensor:
    """How many of ``count`` codes are in use, evenly counted: exp of the entropy of code numbers of any shape."""
    shares = torch.bincount(numbers.flatten(), minlength=count) / numbers.numel()
    return torch.exp(-(shares * shares.clamp(min=1e-12).log()).sum())
