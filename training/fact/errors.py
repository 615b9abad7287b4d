"""What training of an adapter refuses."""

from __future__ import annotations

from ...faces.errors import LikenessError


class BadOptions(LikenessError):
    """Training options that fit nothing."""
