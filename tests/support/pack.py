"""Registers the project root as the package ``likeness_pack`` without running the root ``__init__.py``."""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def register() -> Path:
    """Make ``import likeness_pack.adapters`` and its siblings work; return the project root."""
    if "likeness_pack" not in sys.modules:
        package = types.ModuleType("likeness_pack")
        package.__path__ = [str(ROOT)]
        sys.modules["likeness_pack"] = package
    return ROOT
