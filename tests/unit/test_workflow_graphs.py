"""The shipped workflows against our own nodes, without a ComfyUI; tests/host asks a running one about all the rest."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from pack import ROOT
from workflow_files import api_workflow, workflows

sys.path.append(str(ROOT / "tools" / "dev"))

from node_schema import Node, live_nodes  # noqa: E402 (a script of the tools folder)

GRAPHS: dict[str, dict[str, dict[str, Any]]] = {name: api_workflow(name) for name in workflows()}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
# Workflows that show every node of a task, by the task's file of nodes.
WHOLE = {
    "am_adapter_exemplar": "am_adapter",
    "dreamfit_garment": "dreamfit",
    "dreamfit_pose": "dreamfit",
    "dreamfit_tryon": "dreamfit",
    "parse_face": "parse",
}
# What the authors' own programs use, by the name of the input.
RESTORER = {"steps": 50, "eta": 1.0, "cfg": 4.0, "noise_seed": 42, "size": 512, "lora_strength": 1.0}
AVATAR = {
    "steps": 50,
    "shift": 5.0,
    "cfg": 7.5,
    "switch_step": 10,
    "early_mask": 0.6,
    "expression": 30,
    "pose": 25,
    "character_image_strength": 1.0,
    "window": 33,
    "area": 3.0,
    "noise_seed": 128,
    "amount": 129,
    "most_frames": 0,
}
OFFICIAL: dict[str, dict[str, Any]] = {
    "restore_face": {**RESTORER, "id_scale_mode": "adaptive"},
    "restore_group_photo": {**RESTORER, "id_scale_mode": "adaptive"},
    "avatar_one_speaker": AVATAR,
    "avatar_two_speakers": AVATAR,
}


@pytest.fixture(scope="module")
def nodes() -> dict[str, Node]:
    return {node.id: node for node in live_nodes()}


@pytest.mark.parametrize("name", GRAPHS)
def test_our_nodes_get_every_input_and_no_other(nodes: dict[str, Node], name: str) -> None:
    ours = {number: entry for number, entry in GRAPHS[name].items() if entry["class_type"].startswith("Likeness")}
    assert ours
    for number, entry in ours.items():
        inputs, given = nodes[entry["class_type"]].inputs, set(entry["inputs"])
        needed = {one.name for one in inputs if one.required or one.type in WIDGETS}
        assert needed <= given <= {one.name for one in inputs}, f"node {number} ({entry['class_type']})"


@pytest.mark.parametrize("name", GRAPHS)
def test_wires_lead_to_outputs_of_the_inputs_type(nodes: dict[str, Node], name: str) -> None:
    graph = GRAPHS[name]
    for number, entry in graph.items():
        for key, value in entry["inputs"].items():
            if not isinstance(value, list):
                continue
            source, target = nodes.get(graph[value[0]]["class_type"]), nodes.get(entry["class_type"])
            if source is not None and target is not None:
                wanted = next(one.type for one in target.inputs if one.name == key)
                assert source.outputs[value[1]].type == wanted, f"{number}.{key}"
            elif source is not None:
                assert value[1] < len(source.outputs), f"{number}.{key}"


@pytest.mark.parametrize(("name", "file"), WHOLE.items())
def test_a_task_shows_all_its_nodes(name: str, file: str) -> None:
    own = importlib.import_module(f"likeness_pack.nodes.{file}").NODES
    assert {node.__name__ for node in own} <= {entry["class_type"] for entry in GRAPHS[name].values()}


@pytest.mark.parametrize(("name", "numbers"), OFFICIAL.items())
def test_official_numbers_stand_in_the_workflow(name: str, numbers: dict[str, Any]) -> None:
    values = {key: value for entry in GRAPHS[name].values() for key, value in entry["inputs"].items()}
    assert {key: values[key] for key in numbers} == numbers
