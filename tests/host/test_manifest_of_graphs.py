"""What a graph says of itself: our model files, those of the host's loaders, and what an adapter needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.inject import model_folders
from likeness_pack.inject.provenance import graph_manifest
from pack import ROOT
from safetensors.torch import load_file, save_file
from tiny_pulid import sdxl_shapes, write


@pytest.fixture
def files() -> Iterator[dict[str, Path]]:
    base = engine()
    model_folders.register_model_folders()
    made = {folder: base.models / folder / f"{folder}_of_test.safetensors" for folder in ("checkpoints", "loras")}
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.ones(3)}, path)
    yield made
    for path in made.values():
        path.unlink()


def graph(files: dict[str, Path], adapter: str = "drawn_fact.safetensors") -> dict[str, Any]:
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": files["checkpoints"].name}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": files["loras"].name, "model": ["1", 0]}},
        "3": {"class_type": "LikenessLoadAdapter", "inputs": {"file": adapter, "variant": "auto"}},
        "4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "../x.safetensors"}},
    }


def test_base_model_and_lora_are_named_with_their_hashes(files: dict[str, Path]) -> None:
    manifest = graph_manifest(graph(files))
    assert manifest.nodes == ("LikenessLoadAdapter",)
    assert [model.file for model in manifest.models] == [
        "drawn_fact.safetensors",
        *(one.name for one in files.values()),
    ]
    assert [model.digest for model in manifest.models[1:]] == [read_header(one).digest for one in files.values()]
    # The shipped weights are free, and nothing is claimed of files whose licence nobody told.
    assert manifest.notes == () and manifest.models[0].commercial is True
    assert all(model.commercial is None and not model.weight_licence for model in manifest.models[1:])


def test_the_licence_that_a_file_states_is_in_the_manifest(files: dict[str, Path]) -> None:
    said = {"modelspec.license": "cc-by-nc-4.0\x1b[2J", "modelspec.title": "x"}
    save_file({"a": torch.ones(3)}, files["loras"], said)
    _, base, lora = graph_manifest(graph(files)).models
    assert (base.weight_licence, lora.weight_licence) == ("", "cc-by-nc-4.0?[2J")


def test_what_an_adapter_needs_is_told(files: dict[str, Path]) -> None:
    mine = engine().models / "face_adapters" / "pulid_of_test.safetensors"
    mine.parent.mkdir(parents=True, exist_ok=True)
    write(mine, sdxl_shapes("v1.1"))
    try:
        notes = graph_manifest(graph(files, mine.name)).notes
        needs = f"{mine.name} needs what is not for commercial use: antelopev2.zip (non-commercial research only"
        assert any(note.startswith(needs) for note in notes), notes
    finally:
        mine.unlink()


def test_a_file_trained_here_needs_its_own_encoder_only(files: dict[str, Path]) -> None:
    mine = engine().models / "face_adapters" / "mine_of_test.safetensors"
    mine.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        load_file(ROOT / "demo_weights" / "drawn_fact.safetensors"), mine, {"encoder": "x", "finished_steps": "1"}
    )
    try:
        (note,) = graph_manifest(graph(files, mine.name)).notes
        assert note == f"commercial use not stated by the publisher: {mine.name}"
    finally:
        mine.unlink()
