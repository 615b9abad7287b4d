"""Texts that a user typed, in any keyboard's forms."""

from __future__ import annotations

# Wide digits, letters and signs, the list comma and the wide blank.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("、"): ord(","), 0x3000: ord(" ")}


def typed(text: str) -> str:
    """The text with plain digits, commas, colons and brackets in place of the wide ones of Chinese keyboards."""
    return text.translate(_WIDE)
