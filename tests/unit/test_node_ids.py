"""What saved workflows rely on: node ids, order and defaults of inputs, order of outputs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from likeness_pack.tools.dev.node_ids import live_notes, losses, note_of, read, written

HINT = "run tools/dev/node_ids.py, and commit tests/node_ids.json"


@pytest.fixture(scope="module")
def live() -> dict[str, Any]:
    return live_notes()


def test_nothing_that_was_noted_is_lost(live: dict[str, Any]) -> None:
    assert losses(read(), live) == []


def test_everything_that_is_live_is_noted(live: dict[str, Any]) -> None:
    assert [name for name in live if read().get(name) != live[name]] == [], HINT
    assert json.loads(written(live)) == live


def test_ids_begin_with_our_name(live: dict[str, Any]) -> None:
    assert live
    assert [name for name in live if not name.startswith("Likeness")] == []


def test_every_widget_of_a_live_node_has_a_default_or_a_choice(live: dict[str, Any]) -> None:
    bare = [
        f"{node}.{entry['name']}"
        for node, note in live.items()
        for entry in note["inputs"]
        if entry["type"] in ("INT", "FLOAT", "STRING", "BOOLEAN") and "default" not in entry
    ]
    assert bare == []


class Node:
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("model", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (the host's name)
        return {
            "required": {"model": ("MODEL",), "file": (["a", "b"], {"tooltip": "x"})},
            "optional": {"strength": ("FLOAT", {"default": 1.0})},
        }


def changed(change: Any) -> list[str]:
    old = {"Node": note_of(Node)}
    new = copy.deepcopy(old)
    change(new)
    return losses(old, new)


def test_a_note_holds_order_types_defaults_and_no_entries_of_dropdowns() -> None:
    assert note_of(Node) == {
        "inputs": [
            {"name": "model", "type": "MODEL", "required": True},
            {"name": "file", "type": "COMBO", "required": True},
            {"name": "strength", "type": "FLOAT", "required": False, "default": 1.0},
        ],
        "outputs": [["model", "MODEL"], ["report", "STRING"]],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda new: None,
        lambda new: new.update(Other=new["Node"]),
        lambda new: new["Node"]["outputs"].append(["count", "INT"]),
        lambda new: new["Node"]["inputs"].append({"name": "mask", "type": "MASK", "required": False}),
        lambda new: new["Node"]["inputs"].append({"name": "n", "type": "INT", "required": True, "default": 1}),
    ],
)
def test_growth_is_allowed(change: Any) -> None:
    assert changed(change) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda new: new.pop("Node"), "gone"),
        (lambda new: new["Node"]["inputs"].pop(), "is nothing"),
        (lambda new: new["Node"]["inputs"].reverse(), "inputs number 0"),
        (lambda new: new["Node"]["inputs"][2].update(default=0.5), "inputs number 2"),
        (lambda new: new["Node"]["inputs"][2].update(required=True), "inputs number 2"),
        (lambda new: new["Node"]["inputs"][0].update(name="modell"), "inputs number 0"),
        (lambda new: new["Node"]["inputs"].append({"name": "n", "type": "INT", "required": True}), "no default"),
        (lambda new: new["Node"]["outputs"].insert(0, ["count", "INT"]), "outputs number 0"),
        (lambda new: new["Node"]["outputs"].pop(), "outputs number 1"),
    ],
)
def test_loss_is_told(change: Any, words: str) -> None:
    assert any(words in sentence for sentence in changed(change))
