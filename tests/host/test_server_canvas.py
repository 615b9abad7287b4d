"""Workflow files: the API form is valid, and the canvas form is the same workflow."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import autograph
import pytest
from host_process import HostFailed
from likeness_pack.tools.dev.canvas_graph import canvas_graph, input_specs, is_widget
from pack import ROOT
from PIL import Image
from server_fixtures import Server
from workflow_files import api_workflow, workflows

WORKFLOWS = ROOT / "workflows"
PICTURE_BYTES = 100_000
# Those that run for minutes: stopped as soon as they were taken. Their nodes have tests of their own.
LONG = {"train_drawn_adapter"}
# Folder of the files that each loader names. A fresh host has none of them; empty ones stand in, so that the shipped
# form is judged as it is, up to the first loader that opens one.
MODEL_FOLDERS = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("CLIPLoader", "clip_name"): "clip",
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("ControlNetLoader", "control_net_name"): "controlnet",
    ("DualCLIPLoader", "clip_name1"): "clip",
    ("DualCLIPLoader", "clip_name2"): "clip",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("UNETLoader", "unet_name"): "unet",
    ("VAELoader", "vae_name"): "vae",
    ("LikenessApplyMotion", "file"): "face_adapters",
    ("LikenessEditWPlus", "direction"): "face_adapters/w_directions",
    ("LikenessLipSyncClip", "clip"): "../input",
    ("LikenessLoadAdapter", "file"): "face_adapters",
    ("LikenessLoadAudioEncoder", "encoder"): "face_encoders",
    ("LikenessLoadClip", "clip"): "../input",
    ("LikenessLoadDreamIDV", "file"): "diffusion_models",
    ("LikenessLoadEncoder", "encoder"): "face_encoders",
    ("LikenessLoadHunyuanAvatar", "file"): "diffusion_models",
    ("LikenessLoadMuseTalk", "file"): "diffusion_models",
    ("LikenessLoadParser", "file"): "face_parsers",
    ("LikenessLoadRestorerCheckpoint", "file"): "face_adapters",
    ("LikenessLoadSound", "file"): "../input",
    ("LikenessLoadSwapper", "swapper"): "face_swappers",
    ("LikenessPreviewWPlus", "file"): "face_encoders",
    ("LikenessSaveClip", "like"): "../input",
    ("LikenessSwapClip", "clip"): "../input",
}


def canvas(name: str) -> dict[str, Any]:
    return dict(json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))


def known_nodes(node_info: dict[str, Any], prompt: dict[str, Any]) -> None:
    """Skip where the host is older than a node of the workflow or an input of it; our own must all be there."""
    lacking = {entry["class_type"] for entry in prompt.values()} - node_info.keys()
    assert not {name for name in lacking if name.startswith("Likeness")}
    hosts = [entry for entry in prompt.values() if not entry["class_type"].startswith("Likeness")]
    known = [
        (entry, input_specs(node_info[entry["class_type"]])) for entry in hosts if entry["class_type"] in node_info
    ]
    lacking |= {f"{entry['class_type']}.{name}" for entry, specs in known for name in entry["inputs"].keys() - specs}
    if lacking:
        pytest.skip(f"needs a newer host, with {', '.join(sorted(lacking))}")


@contextlib.contextmanager
def files_of(server: Server, node_info: dict[str, Any], prompt: dict[str, Any]) -> Iterator[None]:
    """Put empty files and a small picture where the workflow expects the user's; take them away again."""
    made: list[Path] = []
    for entry in prompt.values():
        for key, spec in input_specs(node_info[entry["class_type"]]).items():
            value = entry["inputs"].get(key)
            if isinstance(value, list) or not isinstance(spec[0], list) or value in spec[0]:
                continue
            if (entry["class_type"], key) == ("LoadImage", "image"):
                made.append(server.base / "input" / value)
                Image.new("RGB", (64, 64), "gray").save(made[-1])
                continue
            folder = MODEL_FOLDERS.get((entry["class_type"], key))
            assert folder, f"{value!r} is no choice of {key} of {entry['class_type']}"
            made.append(server.base / "models" / folder / value)
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            made[-1].touch()
    try:
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def as_if_files_were_there(info: dict[str, Any], prompt: dict[str, Any]) -> dict[str, Any]:
    """Definitions for a user who has every file that the workflow names."""
    info = copy.deepcopy(info)
    for entry in prompt.values():
        specs = input_specs(info[entry["class_type"]])
        for name, value in entry["inputs"].items():
            if isinstance(specs[name][0], list) and not isinstance(value, list) and value not in specs[name][0]:
                specs[name][0].append(value)
    return info


def test_there_are_workflows_in_both_forms() -> None:
    names = workflows()
    assert {"identity_check", "fact_portrait"} <= set(names)
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == names


@pytest.mark.parametrize("name", workflows())
def test_the_api_form_sets_every_widget_and_nothing_else(node_info: dict[str, Any], name: str) -> None:
    known_nodes(node_info, api_workflow(name))
    for number, entry in api_workflow(name).items():
        specs = input_specs(node_info[entry["class_type"]])
        widgets = {key for key, spec in specs.items() if is_widget(spec)}
        given = set(entry["inputs"])
        assert widgets <= given <= set(specs), f"node {number} ({entry['class_type']})"
        assert set(node_info[entry["class_type"]]["input"]["required"]) <= given


@pytest.mark.parametrize("name", workflows())
def test_the_host_takes_the_api_form(server: Server, node_info: dict[str, Any], name: str) -> None:
    prompt = api_workflow(name)
    known_nodes(node_info, prompt)
    with files_of(server, node_info, prompt):
        number = server.post_prompt(prompt)
        while name in LONG and number not in server.get(f"/history/{number}"):
            # An interrupt before the run begins would be lost.
            server.post("/interrupt", {})
            time.sleep(0.2)
        # What is valid is run as well, up to the first loader that finds its file empty.
        with contextlib.suppress(HostFailed):
            server.wait(number)


@pytest.mark.parametrize("name", workflows())
def test_the_canvas_form_is_the_same_workflow(node_info: dict[str, Any], name: str) -> None:
    prompt, graph = api_workflow(name), canvas(name)
    known_nodes(node_info, prompt)
    known = as_if_files_were_there(node_info, prompt)
    back = autograph.convert(graph, node_info=known, disable_AUTOGRAPH_meta=True)
    found = {key: {"class_type": entry["class_type"], "inputs": dict(entry["inputs"])} for key, entry in back.items()}
    assert found == {key: {part: entry[part] for part in ("class_type", "inputs")} for key, entry in prompt.items()}
    titles = {str(node["id"]): node["title"] for node in graph["nodes"]}
    assert titles == {key: entry["_meta"]["title"] for key, entry in prompt.items()}


@pytest.mark.parametrize("name", workflows())
def test_the_canvas_form_is_what_the_tool_writes(node_info: dict[str, Any], name: str) -> None:
    known_nodes(node_info, api_workflow(name))
    assert canvas(name) == json.loads(json.dumps(canvas_graph(api_workflow(name), node_info)))


@pytest.mark.parametrize("name", workflows())
def test_no_node_of_the_canvas_lies_over_another(name: str) -> None:
    boxes = [(*node["pos"], *node["size"]) for node in canvas(name)["nodes"]]
    for number, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:number]:
            apart = x >= other_x + other_width or other_x >= x + width
            assert apart or y >= other_y + other_height or other_y >= y + height


@pytest.mark.parametrize("name", workflows())
def test_each_workflow_has_a_picture(name: str) -> None:
    path: Path = WORKFLOWS / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 200
    assert path.stat().st_size <= PICTURE_BYTES
