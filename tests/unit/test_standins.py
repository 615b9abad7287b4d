"""Stand-in checkpoints: published names and shapes, the same numbers every time, and files that the loaders take."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.tools.standins import adapters, base_models
from likeness_pack.tools.standins.command import KINDS, main, write_standin
from likeness_pack.tools.standins.fill import Shapes, filled
from sparse_files import write_zero_storage_torch

GOLDEN = os.environ.get("PARITY_GOLDEN")


def first_projector() -> Shapes:
    shapes = adapters.fact(first_generation=True)
    return {name: shape for name, shape in shapes.items() if name.startswith("local_fac_prj.")}


# Names and shapes by formula, and the digest of the list that was taken from the official code.
KEY_LISTS: dict[str, tuple[Shapes, str]] = {
    "fact_checkpoint": (adapters.fact(), "f64c5a24a0d96eab"),
    "fact_encoder/encoder_file": (adapters.transface_s(), "252ce43f06725ca5"),
    "fact_encoder/adapter_file": (adapters.fact_resampler(), "d5e1097c3718adb5"),
    "fact_v0_projector": (first_projector(), "22074923e8391c81"),
    "common_ckpt_faceid_sd15": (adapters.faceid("sd15"), "041a9edc99fd9030"),
    "common_ckpt_faceid_sdxl": (adapters.faceid("sdxl"), "7e8fb4ef476c0ca4"),
    "common_ckpt_faceid_plus_sd15": (adapters.faceid("sd15", plus=True), "f88608706dcbae0c"),
    "common_ckpt_faceid_plus_sdxl": (adapters.faceid("sdxl", plus=True), "1109d65b350d036a"),
    "common_ckpt_faceid_portrait_sd15": (adapters.faceid_portrait(), "04b19d31523ac359"),
}


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def digest(rows: object) -> str:
    return hashlib.sha256(json.dumps(rows).encode("utf-8")).hexdigest()[:16]


@pytest.mark.parametrize("name", KEY_LISTS)
def test_formulas_give_the_published_key_lists(name: str) -> None:
    shapes, expected = KEY_LISTS[name]
    if GOLDEN:
        stem, _, part = name.partition("/")
        keys = json.loads((Path(GOLDEN) / f"{stem}.keys.json").read_text(encoding="utf-8"))
        keys = keys[part] if part else keys
        prefix = "local_fac_prj." if stem == "fact_v0_projector" else ""
        assert {key: list(shape) for key, shape in shapes.items()} == {prefix + key: keys[key] for key in keys}
    assert digest(sorted((key, list(shape)) for key, shape in shapes.items())) == expected


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [(adapters.fact_blocks(), "6f992818e1c2edfe"), (adapters.sdxl_blocks(), "706aaef46a247166")],
    ids=["sd15", "sdxl"],
)
def test_blocks_are_in_the_order_of_the_attention_indices(blocks: dict[str, int], expected: str) -> None:
    assert digest(list(blocks.items())) == expected


def test_parameter_counts_are_the_known_ones() -> None:
    assert count(base_models.unet((320, 640, 1280, 1280))) == 859_520_964
    assert count(base_models.clip_l()) == 123_060_480
    assert count(base_models.taesd()) == 2_445_063 + 1
    assert round(count(adapters.fact()) / 1e6, 1) == 255.5
    assert round(count(adapters.transface_s()) / 1e6, 2) == 86.66


def test_thin_fact_follows_the_widths_of_a_thin_model() -> None:
    blocks = adapters.fact_blocks((32, 64, 128, 128))
    assert blocks["down_blocks.0.attentions.0.transformer_blocks.0"] == 32
    assert blocks["up_blocks.1.attentions.2.transformer_blocks.0"] == 128
    assert blocks["up_blocks.3.attentions.0.transformer_blocks.0"] == 32
    assert blocks["mid_block.attentions.0.transformer_blocks.0"] == 128


def test_numbers_depend_on_the_name_alone() -> None:
    first = filled("a.weight", (4, 5), torch.float32)
    assert torch.equal(first, filled("a.weight", (4, 5), torch.float32))
    assert not torch.equal(first, filled("b.weight", (4, 5), torch.float32))


@pytest.mark.parametrize(
    ("name", "shape", "low", "high"),
    [
        ("block.norm.weight", (512,), 0.3, 1.7),
        ("bn.running_var", (512,), 1.0, 1.7),
        ("layer.alpha_attn", (), 0.05, 0.95),
        ("linear.bias", (512,), -0.7, 0.7),
    ],
)
def test_numbers_are_of_a_size_that_networks_bear(name: str, shape: tuple[int, ...], low: float, high: float) -> None:
    tensor = filled(name, shape, torch.float32)
    assert tensor.shape == shape
    assert low <= tensor.min() and tensor.max() <= high


def test_gates_of_the_stand_in_are_open() -> None:
    for path in adapters.fact_blocks():
        for gate in ("alpha_attn", "alpha_dense"):
            assert filled(f"{path}.attn2.processor.{gate}", (), torch.float16).float().tanh().abs() > 0.05


@pytest.mark.parametrize(
    ("kind", "suffix", "family"),
    [
        ("fact-v1", ".ckpt", "fact"),
        ("fact-v0", ".ckpt", "fact"),
        ("faceid-sd15", ".bin", "ip_adapter_faceid"),
        ("faceid-plusv2-sd15", ".bin", "ip_adapter_faceid"),
        ("faceid-portrait-sd15", ".bin", "ip_adapter_faceid"),
    ],
)
def test_a_thin_stand_in_is_a_file_of_its_family(tmp_path: Path, kind: str, suffix: str, family: str) -> None:
    path = write_standin(kind, tmp_path, (8, 16))
    assert path.name == f"standin-{kind}-w8-16{suffix}"
    adapter = load(path)
    assert (adapter.report.family, adapter.report.dtype, adapter.report.layers) == (family, "float16", 16)


def test_the_same_command_writes_the_same_numbers(tmp_path: Path) -> None:
    first, second = (write_standin("faceid-portrait-sd15", tmp_path / name, (8,)) for name in ("a", "b"))
    assert read_header(first).digest == read_header(second).digest


def test_command_names_files_and_refuses_bad_widths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "new folder"), "--widths", "8", "faceid-portrait-sd15"]) == 0
    assert "standin-faceid-portrait-sd15-w8.bin" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--widths", "12", "fact-v1"])
    assert "multiple of 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "no-such-kind"])


def test_the_base_checkpoint_has_the_parts_of_one(tmp_path: Path) -> None:
    shapes = KINDS["sd15-thin"].shapes(KINDS["sd15-thin"].levels)
    parts = {name.split(".")[0] for name in shapes}
    assert parts == {"model", "first_stage_model", "cond_stage_model"}
    assert shapes["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert shapes["model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)


def test_the_encoder_stand_in_is_taken_by_its_family(tmp_path: Path) -> None:
    path = write_zero_storage_torch(tmp_path / "e.pt", adapters.transface_s())
    assert recognise(read_header(path), "encoder").family.id == "transface"
