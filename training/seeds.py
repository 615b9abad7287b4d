"""Random numbers that depend on nothing but the numbers given: a run can stop anywhere and go on the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def seed_for(*parts: int | str) -> int:
    """A seed of 63 bits for ``parts``; other parts give an unrelated one."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """A generator on the CPU, seeded by `seed_for`."""
    return torch.Generator().manual_seed(seed_for(*parts))


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number between ``low`` and ``high``."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def pick(generator: torch.Generator, weights: Sequence[float]) -> int:
    """An index, each as likely as its weight says."""
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))
