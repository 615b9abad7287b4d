"""Which rows of a batch are positive and which negative. The order is the host's choice and changes from call to
call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POSITIVE = 0
NEGATIVE = 1


def row_pattern(extra: Mapping[str, Any], batch: int) -> tuple[tuple[int, ...], int]:
    """Return (one POSITIVE or NEGATIVE for each chunk of the batch, rows in a chunk).

    Where the host says nothing, every row is positive.
    """
    pattern = tuple(int(row) for row in extra.get("cond_or_uncond") or (POSITIVE,))
    if batch % len(pattern):
        return (POSITIVE,), batch
    return pattern, batch // len(pattern)
