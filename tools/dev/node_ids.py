"""Node ids, inputs and outputs are for ever: ``python tools/dev/node_ids.py`` notes new ones in tests/node_ids.json.

Saved workflows name nodes and inputs, and keep widget values by position alone. So what is noted may only grow: new
nodes, inputs appended at the end (optional, or with a default), outputs appended at the end. The entries of dropdowns
depend on the user's files and are not noted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "node_ids.json"

Note = dict[str, Any]


@contextmanager
def _no_model_files() -> Iterator[None]:
    """Stand in for the host's table of folders: no ComfyUI is needed, and dropdowns are those of a fresh one."""
    from likeness_pack.inject import model_folders

    nowhere = str(ROOT / "no-such-folder")
    table = SimpleNamespace(
        folder_names_and_paths={},
        models_dir=nowhere,
        get_filename_list=lambda name: [],
        get_output_directory=lambda: nowhere,
        get_input_directory=lambda: nowhere,
    )
    with mock.patch.object(model_folders, "folder_paths", lambda: table):
        yield


def live_notes() -> dict[str, Note]:
    """What the nodes of this tree declare, by node id."""
    from likeness_pack.nodes import NODE_CLASS_MAPPINGS

    with _no_model_files():
        return {name: note_of(node) for name, node in sorted(NODE_CLASS_MAPPINGS.items())}


def note_of(node: Any) -> Note:
    """Inputs in the host's order (required ones first) and outputs of one node class."""
    schema = node.INPUT_TYPES()
    inputs = [
        _input(name, spec, group == "required")
        for group in ("required", "optional")
        for name, spec in schema.get(group, {}).items()
    ]
    outputs = [list(pair) for pair in zip(node.RETURN_NAMES, node.RETURN_TYPES, strict=True)]
    return {"inputs": inputs, "outputs": outputs}


def _input(name: str, spec: Sequence[Any], required: bool) -> Note:
    kind = spec[0] if isinstance(spec[0], str) else "COMBO"
    options = spec[1] if len(spec) > 1 else {}
    note: Note = {"name": name, "type": kind, "required": required}
    return note | ({"default": options["default"]} if "default" in options else {})


def losses(old: Mapping[str, Note], new: Mapping[str, Note]) -> list[str]:
    """What ``new`` takes away from saved workflows that were made with ``old``, one sentence each."""
    found = [f"{name}: the node is gone" for name in old if name not in new]
    for name in old:
        if name in new:
            found += [f"{name}: {sentence}" for sentence in _losses_of_node(old[name], new[name])]
    return found


def _losses_of_node(old: Note, new: Note) -> Iterator[str]:
    for kind in ("inputs", "outputs"):
        for index, noted in enumerate(old[kind]):
            live = new[kind][index] if index < len(new[kind]) else "nothing"
            if noted != live:
                yield f"{kind} number {index} was {noted} and is {live}"
    for extra in new["inputs"][len(old["inputs"]) :]:
        if extra["required"] and "default" not in extra:
            yield f"the new input {extra['name']!r} is required and has no default"


def read() -> dict[str, Note]:
    """What is noted so far."""
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.is_file() else {}


def written(notes: Mapping[str, Note]) -> str:
    """The text of the file: one line for each input and output, so that a change is one line of a diff."""
    nodes = []
    for name, note in sorted(notes.items()):
        parts = [
            f'  "{kind}": ['
            + ",".join("\n   " + json.dumps(entry, ensure_ascii=False) for entry in note[kind])
            + "\n  ]"
            for kind in ("inputs", "outputs")
        ]
        nodes.append(f' "{name}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def main() -> int:
    """Note what is new; refuse where something noted would be lost."""
    sys.path.insert(0, str(ROOT / "tools"))
    from likeness_path import register

    register()
    old, new = read(), live_notes()
    lost = losses(old, new)
    if lost:
        print("saved workflows would break:", *lost, sep="\n  ")
        return 1
    FILE.write_text(written(new), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {len(new)} nodes, {len(new) - len(old)} of them new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
