"""The sentence for an optional package that is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..errors import MissingPackage


def missing_package(what: str, packages: Sequence[str]) -> MissingPackage:
    """The error for ``what`` when one of ``packages`` (names for pip) is missing; it carries the pip line."""
    return MissingPackage(
        what,
        expected=f"{' and '.join(packages)} installed",
        found="an import that failed",
        cure=f'run: "{sys.executable}" -m pip install {" ".join(packages)}',
    )
