"""The restoring workflows: every link and input fits the nodes of a real host, and the numbers are official."""

from __future__ import annotations

import contextlib
import importlib
import json
from typing import Any

import pytest
from likeness_pack import nodes as ours
from pack import ROOT

SAMPLING = "comfy_extras.nodes_custom_sampler"
OFFICIAL = {"steps": 50, "eta": 1.0, "cfg": 4.0, "noise_seed": 42, "size": 512, "lora_strength": 1.0}


def prompt(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8")))


def known_nodes() -> dict[str, Any]:
    """Nodes of the host's core and of its custom sampling, under the module names of both hosts, and ours."""
    found: dict[str, Any] = {}
    for names in (("nodes", "comfy.nodes.base_nodes"), (SAMPLING, SAMPLING.replace(".", ".nodes.", 1))):
        for name in names:
            with contextlib.suppress(ImportError):
                found |= getattr(importlib.import_module(name), "NODE_CLASS_MAPPINGS", {})
    return found | ours.NODE_CLASS_MAPPINGS


@pytest.mark.parametrize("name", ["restore_face", "restore_group_photo"])
def test_every_link_and_value_fits(name: str) -> None:
    known, graph = known_nodes(), prompt(name)
    for number, entry in graph.items():
        schema = known[entry["class_type"]].INPUT_TYPES()
        specs = {**schema.get("required", {}), **schema.get("optional", {})}
        assert set(schema.get("required", {})) <= set(entry["inputs"]) <= set(specs), number
        for key, value in entry["inputs"].items():
            if not isinstance(value, list):
                continue
            source = known[graph[value[0]]["class_type"]]
            assert source.RETURN_TYPES[value[1]] == specs[key][0], f"{number}.{key}"


@pytest.mark.parametrize("name", ["restore_face", "restore_group_photo"])
def test_official_numbers_stand_in_the_workflow(name: str) -> None:
    values = {key: value for entry in prompt(name).values() for key, value in entry["inputs"].items()}
    assert {key: values[key] for key in OFFICIAL} == OFFICIAL
    assert values["id_scale_mode"] == "adaptive"
