"""Writes ``locales/en/nodeDefs.json`` from the nodes themselves: ``python tools/dev/locales.py``.

The form is ComfyUI's (0.3.13 and newer): node id -> display_name, description, inputs by name, outputs by index. Other
languages are translated by hand; the command names the texts they lack.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [entry for entry in [str(Path(__file__).parent)] if entry not in sys.path]

from node_schema import ROOT, Node, live_nodes  # noqa: E402 (the path is set above)

LOCALES = ROOT / "locales"
Texts = dict[str, Any]


def english() -> Texts:
    """The English texts of every node, in ComfyUI's form."""
    return {node.id: _texts(node) for node in live_nodes()}


def _texts(node: Node) -> Texts:
    return {
        "display_name": node.title,
        "description": node.description,
        "inputs": {item.name: {"name": item.name, "tooltip": item.tooltip} for item in node.inputs},
        "outputs": {str(i): {"name": item.name, "tooltip": item.tooltip} for i, item in enumerate(node.outputs)},
    }


def read(language: str) -> Texts:
    """The texts of a language as its file has them."""
    return dict(json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8")))


def leaves(texts: Texts, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every text."""
    for name, value in texts.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def as_json(texts: Texts) -> str:
    """The file's content."""
    return json.dumps(texts, ensure_ascii=False, indent=1) + "\n"


def main() -> int:
    """Write the English file; say what the others lack."""
    texts = english()
    target = LOCALES / "en" / "nodeDefs.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(as_json(texts), encoding="utf-8", newline="\n")
    wanted = {path for path, _ in leaves(texts)}
    lacking = 0
    for folder in sorted(path for path in LOCALES.iterdir() if path.is_dir() and path.name != "en"):
        found = {path for path, _ in leaves(read(folder.name))}
        for path in sorted(wanted ^ found):
            print(f"{folder.name}: {'lacks' if path in wanted else 'has a text too many:'} {path}")
        lacking += len(wanted ^ found)
    print(f"{len(texts)} nodes, {len(wanted)} English texts")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
