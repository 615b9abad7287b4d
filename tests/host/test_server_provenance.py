"""Pictures say what made them, whichever node saves them, from the canvas and headless."""

from __future__ import annotations

import importlib.util
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from host_process import HostFailed
from likeness_pack.adapters.provenance import BadManifest, Manifest, manifest_of
from likeness_pack.media.texts import read_texts
from likeness_pack.tools import demo
from pack import ROOT
from PIL import Image
from server_fixtures import Prompt, Server, text_of


def read_manifest(path: Path) -> Manifest:
    return manifest_of(read_texts(path), path.name)


def _adapter(server: Server) -> Path:
    return next(path for path in server.files.values() if path.parent.name == "face_adapters")


def _graph(server: Server) -> Prompt:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "2": {"class_type": "LikenessLoadAdapter", "inputs": {"file": _adapter(server).name, "variant": "auto"}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "stock"}},
    }


def _saved(server: Server, prompt: Prompt, extra: dict[str, Any] | None = None) -> Path:
    # Another name for each run: what the server has cached would come back as the file of an earlier one.
    for node in prompt.values():
        if "filename_prefix" in node["inputs"]:
            node["inputs"]["filename_prefix"] = f"provenance/{uuid.uuid4().hex}"
    body: dict[str, Any] = {"prompt": prompt, "client_id": "test"}
    if extra is not None:
        body["extra_data"] = {"extra_pnginfo": extra}
    number = server.post("/prompt", body)["prompt_id"]
    server.wait(number, 300.0)
    entry = server.get(f"/history/{number}")[number]
    return server.images(entry["outputs"])[-1]


def _check(found: Manifest) -> None:
    assert "LikenessLoadAdapter" in found.nodes and all(node.startswith("Likeness") for node in found.nodes)
    (model,) = found.models
    assert model.family and len(model.digest) == 64 and model.code_licence


def test_the_stock_save_node_writes_it_from_the_canvas(server: Server) -> None:
    path = _saved(server, _graph(server), {"workflow": {"nodes": []}})
    _check(read_manifest(path))
    with Image.open(path) as picture:
        assert json.loads(picture.info["workflow"]) == {"nodes": []}


def test_the_stock_save_node_writes_it_headless(server: Server) -> None:
    path = _saved(server, _graph(server))
    _check(read_manifest(path))
    with Image.open(path) as picture:
        assert "likeness" not in picture.info


def test_the_stock_node_for_clips_writes_it_too(server: Server, node_info: dict[str, Any]) -> None:
    if "SaveVideo" not in node_info:
        pytest.skip("this host has no node that saves videos")
    prompt = _graph(server)
    prompt["3"] = {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}}
    saving = {"video": ["3", 0], "filename_prefix": "stock", "format": "auto", "codec": "auto"}
    prompt["4"] = {"class_type": "SaveVideo", "inputs": saving}
    path = _saved(server, prompt)
    assert path.suffix == ".mp4"
    _check(read_manifest(path))


def test_graphs_without_our_nodes_are_left_alone(server: Server) -> None:
    prompt = _graph(server)
    del prompt["2"]
    path = _saved(server, prompt, {"workflow": {}})
    with pytest.raises(BadManifest, match="found none"):
        read_manifest(path)


def test_the_own_save_node_adds_the_identity_and_the_reader_finds_it(server: Server) -> None:
    pytest.importorskip("dlib")
    shipped = demo.load_workflow("identity_check")
    prompt = {name: shipped[name] for name in ("2", "4", "6", "8", "10")}
    # The mark's package takes OpenCV, which a newer ComfyUI does not bring.
    marks = all(importlib.util.find_spec(name) for name in ("cv2", "imwatermark"))
    settings = {"filename_prefix": "own", "invisible_mark": marks}
    wires = {"images": ["2", 0], "identity_1": ["10", 0]}
    prompt["20"] = {"class_type": "LikenessSavePicture", "inputs": settings | wires}
    path = _saved(server, prompt)
    found = read_manifest(path)
    assert "LikenessEncodeIdentity" in found.nodes and not found.models
    (digest,) = found.identities
    assert len(digest) == 64
    shutil.copy(path, server.base / "input" / "made.png")
    read = {"1": {"class_type": "LikenessReadProvenance", "inputs": {"file": "made.png", "invisible_mark": marks}}}
    text = text_of(server.history(read)["outputs"], "1")
    assert f"identities: {digest[:12]}" in text and ("invisible mark: found" in text) == marks


def test_a_picture_too_small_for_the_mark_still_tells_what_made_it(server: Server) -> None:
    Image.new("RGB", (64, 64)).save(server.base / "input" / "small.png")
    read = {"1": {"class_type": "LikenessReadProvenance", "inputs": {"file": "small.png", "invisible_mark": True}}}
    text = text_of(server.history(read)["outputs"], "1")
    assert "small.png: expected" in text and "invisible mark: not looked for (" in text


def test_the_licence_of_a_model_file_is_checked(server: Server) -> None:
    adapter = _adapter(server)
    card = "---\nlicense: mit\nbase_model: a/b\n---\n"
    inputs = {"file": adapter.name, "card": card, "base_licence": "cc-by-nc-4.0", "base_file": "none"}
    check = {"1": {"class_type": "LikenessCheckModelFile", "inputs": inputs | {"runtime_parts": "encoder: mit"}}}
    text = text_of(server.history(check)["outputs"], "1")
    assert "has lost NC (non-commercial only), ATTR_CC (attribution)" in text


def test_a_copy_of_a_model_file_says_what_it_is(server: Server) -> None:
    adapter = _adapter(server)
    folder = adapter.parent
    shutil.copy(ROOT / "demo_weights" / "drawn_fact.safetensors", folder / "drawn copy.safetensors")
    inputs = {
        "file": "drawn copy.safetensors", "name": "我的 model", "title": "", "author": "Me", "licence": "mit",
        "base_licence": "cc-by-nc-4.0", "merged_from": "", "description": "", "base_file": "none",
    }  # fmt: skip
    save = {"1": {"class_type": "LikenessSaveModelMetadata", "inputs": inputs}}
    text = text_of(server.history(save)["outputs"], "1")
    assert "我的 model.safetensors: licence mit" in text and "has lost NC" in text and "as they were saved" in text
    load = {"1": {"class_type": "LikenessLoadAdapter", "inputs": {"file": "我的 model.safetensors", "variant": "auto"}}}
    assert "FACT" in text_of(server.history(load)["outputs"], "1")
    save["1"]["inputs"] = {**inputs, "author": "B"}
    with pytest.raises(HostFailed, match="expected a new name"):
        server.history(save)
