"""The shipped workflows as files."""

from __future__ import annotations

import json
from typing import Any

from pack import ROOT

API = ROOT / "workflows" / "api"


def workflows() -> list[str]:
    """Names of all workflows in API form."""
    return sorted(path.stem for path in API.glob("*.json"))


def api_workflow(name: str) -> dict[str, Any]:
    """A workflow in API form: entries by number of node."""
    return dict(json.loads((API / f"{name}.json").read_text(encoding="utf-8")))
