"""Stand-in checkpoints: published names and shapes, the same numbers every time, and files that the loaders take."""

from __future__ import annotations

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
KEY_LISTS = {
    "fact_checkpoint": adapters.fact,
    "common_ckpt_faceid_sd15": lambda: adapters.faceid("sd15"),
    "common_ckpt_faceid_sdxl": lambda: adapters.faceid("sdxl"),
    "common_ckpt_faceid_plus_sd15": lambda: adapters.faceid("sd15", plus=True),
    "common_ckpt_faceid_plus_sdxl": lambda: adapters.faceid("sdxl", plus=True),
    "common_ckpt_faceid_portrait_sd15": adapters.faceid_portrait,
}


def count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def golden_keys(name: str) -> dict[str, object]:
    return json.loads((Path(str(GOLDEN)) / f"{name}.keys.json").read_text(encoding="utf-8"))


@pytest.mark.skipif(not GOLDEN, reason="PARITY_GOLDEN names no folder")
@pytest.mark.parametrize("name", KEY_LISTS)
def test_formulas_give_the_published_key_lists(name: str) -> None:
    assert {key: list(shape) for key, shape in KEY_LISTS[name]().items()} == golden_keys(name)


@pytest.mark.skipif(not GOLDEN, reason="PARITY_GOLDEN names no folder")
def test_the_encoder_and_both_projectors_are_the_published_ones() -> None:
    keys = golden_keys("fact_encoder")
    assert {name: list(shape) for name, shape in adapters.transface_s().items()} == keys["encoder_file"]
    assert {name: list(shape) for name, shape in adapters.fact_resampler().items()} == keys["adapter_file"]
    first = {n: list(s) for n, s in adapters.fact(first_generation=True).items() if n.startswith("local_fac_prj.")}
    assert first == {f"local_fac_prj.{n}": s for n, s in golden_keys("fact_v0_projector").items()}


@pytest.mark.skipif(not GOLDEN, reason="PARITY_GOLDEN names no folder")
@pytest.mark.parametrize(("base", "blocks"), [("sd15", adapters.fact_blocks()), ("sdxl", adapters.sdxl_blocks())])
def test_blocks_are_in_the_order_of_the_attention_indices(base: str, blocks: dict[str, int]) -> None:
    table = json.loads((Path(str(GOLDEN)) / "common_attn_index_order.json").read_text(encoding="utf-8"))[base]
    cross = [(row["diffusers"].removesuffix(".attn2"), row["hidden"]) for row in table if row["attn"] == "attn2"]
    assert cross == list(blocks.items())


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
