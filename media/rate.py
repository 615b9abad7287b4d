"""The true rate of a clip, from the time stamps of all its frames and not from its header."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from .av_package import failures, opened
from .facts import ClipFacts, picture_stream

# Rates that cameras and editors write; stamps of a thousandth of a second come this near to them.
_USUAL = (
    *(Fraction(1000 * whole, 1001) for whole in (24, 30, 48, 60, 120)),
    *map(Fraction, (12, 15, 24, 25, 30, 48, 50, 60, 100, 120)),
)
_NEAR = Fraction(1, 2500)
_UNKNOWN = Fraction(25)


def true_rate(path: Path, facts: ClipFacts) -> Fraction:
    """Frames a second between a clip's first and last frame; nothing is decoded.

    The average in a header also counts how long the last frame is shown, which few files say right.

    Args:
        path: the clip.
        facts: of it.

    Raises:
        BadClip: no clip.
    """
    with opened(path) as container:
        try:
            packets = container.demux(picture_stream(container, path))
            stamps = sorted(packet.pts for packet in packets if packet.pts is not None and packet.size)
        except failures():
            stamps = []
    if len(stamps) < 2 or stamps[-1] == stamps[0]:
        return facts.rate or _UNKNOWN
    mean = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * facts.time_base)
    nearest = min(_USUAL, key=lambda rate: abs(rate - mean))
    return nearest if abs(nearest - mean) <= _NEAR * nearest else mean
