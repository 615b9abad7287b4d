"""The commands that inspect and convert a checkpoint: without optional packages as users run them, else in this
process, since each start of torch takes two seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.adapters.checkpoint import load_tensors, read_header
from pack import ROOT
from safetensors import safe_open
from sparse_files import write_sparse_safetensors

sys.path.append(str(ROOT / "tools"))

import convert_checkpoint  # noqa: E402 (a script of the tools folder)
import inspect_checkpoint  # noqa: E402 (a script of the tools folder)

# Runs a command where every package but torch, safetensors and the standard library fails to import.
BARE = """
import importlib.abc, runpy, sys
class Closed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Closed())
sys.argv = {argv!r}
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
BLOCKED = ("kornia", "comfy", "folder_paths", "insightface", "onnxruntime", "cv2", "dlib", "mtcnn", "PIL", "scipy")


def run(tool: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    argv = [str(ROOT / "tools" / f"{tool}.py"), *map(str, arguments)]
    code = BARE.format(blocked=BLOCKED, argv=argv, folder=str(ROOT / "tools"))
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120
    )


def vision_transformer(width: int = 64, depth: int = 2) -> dict[str, tuple[int, ...]]:
    """Shapes of a small face encoder in the published layout of TransFace."""
    shapes: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, width),
        "pos_embed": (1, 144, width),
        "patch_embed.proj.weight": (width, 3, 9, 9),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "feature.0.weight": (width, 144 * width),
        "feature.2.weight": (512, width),
        "senet.0.weight": (144, 144 * width),
        "senet.2.weight": (144, 144),
    }
    for block in range(depth):
        name = f"blocks.{block}."
        for part, shape in (("qkv", (3 * width, width)), ("proj", (width, width))):
            shapes[f"{name}attn.{part}.weight"] = shape
        shapes[name + "mlp.fc1.weight"] = (4 * width, width)
        shapes[name + "mlp.fc2.weight"] = (width, 4 * width)
    return shapes


def test_inspect_tells_what_an_encoder_is_without_comfyui(tmp_path):
    path = write_sparse_safetensors(tmp_path / "脸 model.weights", vision_transformer())
    done = run("inspect_checkpoint", path, "--kind", "encoder")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["recognised"] is True
    assert (report["family"], report["kind"], report["container"]) == ("transface", "encoder", "safetensors")
    assert report["size"] == path.stat().st_size
    assert report["dtype"] == "float32"
    assert {"code_licence", "weight_licence", "commercial", "variant", "tokens", "layers", "base"} <= set(report)


def test_inspect_gives_the_reasons_of_a_refusal(tmp_path, capsys):
    path = write_sparse_safetensors(tmp_path / "a.safetensors", {"pulid_ca.0.to_q.weight": (4, 4)})
    assert inspect_checkpoint.main([str(path), "--kind", "encoder"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["recognised"], report["error"]) == (False, "UnknownCheckpoint")
    assert "PuLID" in report["message"]
    assert "transface" in report["reasons"]


@pytest.mark.parametrize("wrong", [[], ["a.safetensors", "--kind", "cat"]])
def test_inspect_refuses_wrong_usage(wrong):
    with pytest.raises(SystemExit, match="2"):
        inspect_checkpoint.main(wrong)


def test_inspect_refuses_a_page(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    path.write_text("<html>", encoding="utf-8")
    assert inspect_checkpoint.main([str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "BadCheckpoint"


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f'echo ran > "{self.marker}"',)


def hostile_content(marker: Path) -> dict[str, Any]:
    shared = torch.arange(12.0)
    return {
        "state_dict": {
            "module.whole": shared,
            "module.part": shared[2:6],
            "module.turned": shared.reshape(3, 4).t(),
            "module.half": torch.ones(2).half(),
            "module.parameter": torch.nn.Parameter(torch.ones(3)),
        },
        "attack": Attack(marker),
        "options": argparse.Namespace(rate=1),
        "optimizer_states": [{"state": {0: torch.ones(3)}}],
        "epoch": 3,
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_convert_keeps_tensors_drops_the_rest_and_runs_nothing(tmp_path, legacy):
    marker, source = tmp_path / "ran", tmp_path / "old file.ckpt"
    content = hostile_content(marker)
    torch.save(content, source, _use_new_zipfile_serialization=not legacy)
    before = source.read_bytes()
    done = run("convert_checkpoint", source, "--variant", "plus_v2")
    assert done.returncode == 0, done.stderr
    assert not marker.exists() and source.read_bytes() == before
    target = tmp_path / "old file.safetensors"
    expected = {name.removeprefix("module."): value for name, value in content["state_dict"].items()}
    loaded = load_tensors(read_header(target))
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor.detach())
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["likeness.source"] == "old file.ckpt"
    assert metadata["likeness.source_sha256"] == hashlib.sha256(before).hexdigest()
    assert metadata["likeness.variant"] == "plus_v2"
    assert f"sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}" in done.stdout
    assert f"dropped 'attack': '{os.system.__module__}.system'" in done.stdout
    assert "dropped 'options': 'argparse.Namespace'" in done.stdout
    assert "optimizer_states" in done.stdout
    assert list(tmp_path.glob("*.partial")) == []


def converted(*arguments: Any) -> int:
    """The exit code of the command."""
    return convert_checkpoint.main([*map(str, arguments)])


def test_convert_never_overwrites_unasked(tmp_path, capsys):
    source, target = tmp_path / "a.ckpt", tmp_path / "b.safetensors"
    torch.save({"a": torch.ones(2)}, source)
    target.write_bytes(b"precious")
    assert converted(source, target) == 1 and "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert converted(source, target, "--force") == 0
    assert torch.equal(load_tensors(read_header(target))["a"], torch.ones(2))


def test_convert_needs_a_file_and_a_folder_that_is_there(tmp_path, capsys):
    source = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(2)}, source)
    assert converted(source, tmp_path / "nowhere" / "b.safetensors") == 1
    assert "b.safetensors: expected a folder" in capsys.readouterr().err
    assert converted(".") == 1
    assert "expected a file, found a folder" in capsys.readouterr().err


def test_convert_reads_plain_pickles_of_arrays(tmp_path):
    source = tmp_path / "a.pkl"
    source.write_bytes(pickle.dumps({"net": {"w": np.arange(6, dtype=">f4").reshape(2, 3), "n": np.int64(3)}}, 4))
    assert converted(source) == 0
    loaded = load_tensors(read_header(tmp_path / "a.safetensors"))
    assert set(loaded) == {"net.w"}
    assert loaded["net.w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_convert_finds_the_state_of_a_pickled_module(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    torch.save(network, tmp_path / "whole.pth")
    header = read_header_or_none(tmp_path / "whole.pth")
    assert header is None
    assert converted(tmp_path / "whole.pth") == 0
    loaded = load_tensors(read_header(tmp_path / "whole.safetensors"))
    expected = network.state_dict()
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def read_header_or_none(path: Path) -> Any:
    from likeness_pack.adapters.errors import UnsafeCheckpoint

    try:
        return read_header(path)
    except UnsafeCheckpoint:
        return None


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04K\x01.", b"\x80\x04}", b"PK\x03\x04"])
def test_convert_refuses_what_it_cannot_read(tmp_path, capsys, content):
    source = tmp_path / "a.ckpt"
    source.write_bytes(content)
    assert converted(source) == 1
    told = capsys.readouterr().err
    assert told.startswith("a.ckpt: expected") and len(told.splitlines()) == 1
    assert not (tmp_path / "a.safetensors").exists()


def test_convert_stops_at_containers_that_multiply(tmp_path, capsys):
    level: dict[str, Any] = {"a": 1}
    for _ in range(50):
        level = {"a": level, "b": level, "c": Attack(tmp_path / "ran")}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(level, 2))
    assert converted(tmp_path / "a.pkl") == 1 and "entries" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
