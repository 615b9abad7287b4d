"""Makes the project importable for commands: registers its folder as the package ``likeness_pack``.

The root ``__init__.py`` is for ComfyUI and is not executed, so commands need no ComfyUI.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def register() -> Path:
    """Make ``import likeness_pack.adapters`` and its siblings work; return the project's folder."""
    if "likeness_pack" not in sys.modules:
        package = types.ModuleType("likeness_pack")
        package.__path__ = [str(ROOT)]
        sys.modules["likeness_pack"] = package
    return ROOT
