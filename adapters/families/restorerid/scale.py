"""The adaptive scale of the reference attention."""

from __future__ import annotations

import math

# Official: exp(0.1 * (9.5 - MUSIQ)), not clamped.
SLOPE = 0.1
ORIGIN = 9.5


def adaptive_scale(quality: float) -> float:
    """Scale for a picture of a MUSIQ score: 1 at 9.5, 0.35 at 20, 0.05 at 40, 0.006 at 60."""
    return math.exp(SLOPE * (ORIGIN - quality))
