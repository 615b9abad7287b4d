"""What the nodes say of themselves, read from the live classes. Needs no ComfyUI: its folders are taken for empty."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [entry for entry in [str(ROOT / "tools")] if entry not in sys.path]

from likeness_path import register  # noqa: E402 (the path is set above)

register()

NOWHERE = "no-such-folder"


@dataclass(frozen=True)
class NodeInput:
    """One input of a node.

    Attributes:
        name: as in a workflow file.
        type: socket or widget type; ``COMBO`` for a list of choices.
        required: whether the node runs only with it.
        options: the choices of a list, without files of this machine; else empty.
        default: the widget's value at first, or None where there is none.
        tooltip: the help text.
    """

    name: str
    type: str
    required: bool
    options: tuple[str, ...]
    default: Any
    tooltip: str


@dataclass(frozen=True)
class NodeOutput:
    """One output of a node: name, socket type, help text."""

    name: str
    type: str
    tooltip: str


@dataclass(frozen=True)
class Node:
    """One node: id, name for users, category, description, inputs in their order, outputs in their order."""

    id: str
    title: str
    category: str
    description: str
    inputs: tuple[NodeInput, ...]
    outputs: tuple[NodeOutput, ...]


def live_nodes() -> tuple[Node, ...]:
    """Every registered node, in the order of registration."""
    from likeness_pack import nodes
    from likeness_pack.inject import model_folders

    empty = SimpleNamespace(
        folder_names_and_paths={},
        models_dir=NOWHERE,
        get_output_directory=lambda: NOWHERE,
        get_input_directory=lambda: NOWHERE,
    )
    with patch.object(model_folders, "folder_paths", lambda: empty):
        return tuple(_node(name, kind) for name, kind in nodes.NODE_CLASS_MAPPINGS.items())


def _node(name: str, kind: Any) -> Node:
    schema = kind.INPUT_TYPES()
    inputs = [
        _input(key, value, section == "required")
        for section in ("required", "optional")
        for key, value in schema.get(section, {}).items()
    ]
    outputs = zip(kind.RETURN_NAMES, kind.RETURN_TYPES, kind.OUTPUT_TOOLTIPS, strict=True)
    return Node(
        name,
        kind.DISPLAY_NAME,
        kind.CATEGORY,
        kind.DESCRIPTION,
        tuple(inputs),
        tuple(NodeOutput(*output) for output in outputs),
    )


def _input(name: str, value: tuple[Any, ...], required: bool) -> NodeInput:
    kind, settings = value[0], value[1] if len(value) > 1 else {}
    choices = tuple(kind) if isinstance(kind, list) else ()
    kind = "COMBO" if isinstance(kind, list) else kind
    return NodeInput(name, kind, required, choices, settings.get("default"), settings.get("tooltip", ""))
