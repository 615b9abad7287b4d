"""The interface gets every node as its class declares it."""

from __future__ import annotations

from typing import Any

import pytest
from likeness_pack.tools.dev.node_ids import live_notes, note_of
from server_fixtures import Server

NOTES = live_notes()


def served(info: dict[str, Any]) -> dict[str, Any]:
    """An entry of /object_info in the form of tests/node_ids.json."""

    class Declared:
        RETURN_TYPES = tuple(info["output"])
        RETURN_NAMES = tuple(info["output_name"])

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (the host's name)
            return dict(info["input"])

    return note_of(Declared)


@pytest.mark.parametrize("node", NOTES)
def test_a_node_is_served_with_its_inputs_and_outputs(node_info: dict[str, Any], node: str) -> None:
    assert served(node_info[node]) == NOTES[node]


@pytest.mark.parametrize("node", NOTES)
def test_a_node_explains_itself(node_info: dict[str, Any], node: str) -> None:
    info = node_info[node]
    specs = [spec for group in ("required", "optional") for spec in info["input"].get(group, {}).values()]
    assert all(len(spec) == 2 and spec[1]["tooltip"].endswith(".") for spec in specs)
    assert info["description"] and info["category"].startswith("Likeness/")
    assert info["display_name"] != node


def test_the_server_finds_the_files_where_they_lie(server: Server, node_info: dict[str, Any]) -> None:
    offered = [node_info["LikenessLoadAdapter"], node_info["LikenessLoadEncoder"]]
    choices = [entry for info in offered for spec in info["input"]["required"].values() for entry in spec[0]]
    assert {path.name for path in server.files.values() if path.parent.name != "checkpoints"} <= set(choices)
