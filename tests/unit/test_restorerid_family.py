"""RestorerID: recognition of its files, tokens, tables, shortcut and converter."""

from __future__ import annotations

import json
import math
import os
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, MissingModelFile
from likeness_pack.adapters.families.restorerid import schedule
from likeness_pack.adapters.families.restorerid.adapter import RestorerIDAdapter
from likeness_pack.adapters.families.restorerid.arch import IDBalance, Spade
from likeness_pack.adapters.families.restorerid.family import FAMILY
from likeness_pack.adapters.families.restorerid.layout import RESIDUAL_BLOCKS, has_base, is_addition, is_base
from likeness_pack.adapters.families.restorerid.scale import adaptive_scale
from likeness_pack.adapters.families.restorerid.structure import StructureEncoder
from likeness_pack.adapters.family import Match
from likeness_pack.adapters.identity import Identity
from likeness_pack.tools.standins import restorerid as keys
from likeness_pack.tools.standins.command import write_standin
from likeness_pack.tools.standins.fill import filled_all
from module_folders import ModuleFolders
from pack import ROOT
from safetensors.torch import load_file, save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch

sys.path.append(str(ROOT / "tools"))

import convert_restorerid  # noqa: E402 (a script of the tools folder)

GOLDEN = os.environ.get("PARITY_GOLDEN")
THIN = (32, 64, 128, 128)


@pytest.fixture(scope="module")
def slim(module_folders: ModuleFolders) -> Path:
    """A thin slim file whose structure encoder and projection have their published size."""
    return write_standin("restorerid-slim", module_folders.mktemp("slim"), THIN)


@pytest.fixture(scope="module")
def adapter(slim: Path) -> RestorerIDAdapter:
    return registry.load(slim, kind="adapter")


def reference(rows: int = 1, **features: torch.Tensor) -> Identity:
    generator = torch.Generator().manual_seed(3)
    known = {
        "embedding": torch.randn(rows, 512, generator=generator) * 20,
        "image_tokens_bgr": torch.randn(rows, 257, 1280, generator=generator),
        "image_tokens_zero": torch.randn(1, 257, 1280, generator=generator),
    }
    return Identity("arcface_buffalo_l", known | features)


def test_counts_are_the_published_ones() -> None:
    def count(shapes: dict[str, tuple[int, ...]], part: str = "") -> int:
        return sum(math.prod(shape) for name, shape in shapes.items() if part in name)

    unet = keys.unet_additions()
    assert count(keys.structure_encoder()) == 52_494_080
    assert count(unet) + 859_520_964 == 1_021_791_684
    assert [round(count(unet, part) / 1e6, 2) for part in (".spade.", ".IDBalance.", "_lora.", "_ip.")] == [
        53.02, 64.57, 25.51, 19.17,
    ]  # fmt: skip
    assert set(keys.residual_widths()) == set(RESIDUAL_BLOCKS)
    assert len(RESIDUAL_BLOCKS) == 22


@pytest.mark.skipif(not GOLDEN, reason="the official key lists are beside the golden files")
def test_formulas_give_the_official_key_lists() -> None:
    folder = Path(str(GOLDEN))
    unet = json.loads((folder / "restorerid_unet_full.keys.json").read_text(encoding="utf-8"))
    additions = {name: tuple(shape) for name, shape in unet.items() if is_addition(f"model.diffusion_model.{name}")}
    assert additions == keys.unet_additions()
    for stem, shapes in (("structenc", keys.structure_encoder()), ("musiq", keys.musiq())):
        listed = json.loads((folder / f"restorerid_{stem}.keys.json").read_text(encoding="utf-8"))
        assert {name.split("::")[1]: tuple(shape) for name, shape in listed.items()} == shapes


def test_the_official_checkpoint_is_recognised_at_full_size(tmp_path: Path) -> None:
    shapes = keys.restorerid_full() | {"betas": (1000,), "Adapter.image_encoder.visual_projection.weight": (1024, 1280)}
    plain = write_sparse_safetensors(tmp_path / "x.safetensors", shapes, torch.float16)
    lightning = {"state_dict": shapes, "optimizer_states": {"a": (3,)}}
    pickled = write_zero_storage_torch(tmp_path / "y.ckpt", lightning)
    for path in (plain, pickled):
        report = registry.describe(path, kind="adapter")
        assert (report.family, report.base, report.tokens, report.layers) == ("restorerid", "sd15", 4, 38)
        assert report.commercial is False
        assert "Load RestorerID Checkpoint" in report.as_text()
        assert has_base(read_header(path))
    base = {name for name in shapes if is_base(name)}
    assert len([name for name in base if name.startswith("model.diffusion_model.")]) == 686
    assert not base & {name for name in shapes if is_addition(name)}
    assert "betas" not in base


def test_the_slim_file_is_recognised(tmp_path: Path) -> None:
    path = write_sparse_safetensors(tmp_path / "x.safetensors", keys.restorerid_slim(), torch.float16)
    report = registry.describe(path, kind="adapter")
    assert report.family == "restorerid"
    assert "any SD1.5 model" in report.as_text()
    assert round(report.weight_bytes / 1e6) == 497
    assert not has_base(read_header(path))


def test_files_of_the_first_stage_and_parts_are_refused_with_a_reason(tmp_path: Path) -> None:
    whole = keys.restorerid_slim()
    for left_out, reason in (
        (".IDBalance.", "first training stage"),
        (".spade.", "no spade"),
        ("structcond_stage_model.", "no structure encoder"),
        ("_ip.", "to_k_ip"),
    ):
        shapes = {name: shape for name, shape in whole.items() if left_out not in name}
        path = write_sparse_safetensors(tmp_path / "part.safetensors", shapes)
        assert reason in str(FAMILY.recognise(read_header(path)))


@pytest.mark.skipif(not GOLDEN, reason="other systems' key lists are beside the golden files")
def test_no_file_of_another_system_is_taken(tmp_path: Path) -> None:
    for path in sorted(Path(str(GOLDEN)).glob("*.keys.json")):
        listed = json.loads(path.read_text(encoding="utf-8"))
        if path.name.startswith("restorerid") or not isinstance(listed, dict):
            continue
        flat = {name: shape for name, shape in listed.items() if isinstance(shape, list)}
        if not flat:
            continue
        written = write_zero_storage_torch(tmp_path / "other.pt", flat)
        assert isinstance(FAMILY.recognise(read_header(written)), str), path.name


def test_a_missing_or_strange_key_is_told(tmp_path: Path) -> None:
    shapes = keys.restorerid_slim(THIN)
    name = "model.diffusion_model.middle_block.0.IDBalance.crossattn.to_v.weight"
    strange = name.replace("to_v", "to_x")
    further = "model.diffusion_model.input_blocks.3.1.attn9_lora.down.weight"
    for told, changed in (
        ("1 missing", {key: shape for key, shape in shapes.items() if key != name}),
        ("1 left over", shapes | {strange: shapes[name]}),
        ("further ones", shapes | {further: shapes[name]}),
    ):
        with pytest.raises(KeyMismatch, match=told):
            registry.load(write_sparse_safetensors(tmp_path / "a", changed, torch.float16), kind="adapter")


def test_loading_keeps_the_files_numbers(slim: Path, adapter: RestorerIDAdapter) -> None:
    tensors = load_file(slim)
    block = dict(adapter.network.named_blocks())["output_blocks.5.0"]
    key = "model.diffusion_model.output_blocks.5.0.spade.mlp_gamma.weight"
    assert torch.equal(block.spade.mlp_gamma.weight, tensors[key])
    low = adapter.low_rank["middle_block.1.transformer_blocks.0.attn2.to_out.0.weight"]
    lora = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_out_lora"
    assert torch.equal(low.up, tensors[f"{lora}.up.weight"])
    assert len(adapter.low_rank) == 128
    assert adapter.constant == frozenset()
    assert [layer.width for layer in adapter.network.reference_layers()] == [
        32, 32, 64, 64, 128, 128, 128, 128, 128, 64, 64, 64, 32, 32, 32, 128,
    ]  # fmt: skip


def test_tokens_of_a_reference(adapter: RestorerIDAdapter) -> None:
    identity = reference(2)
    cond, uncond = adapter.reference_tokens(identity)
    assert cond.shape == (2, 4, 768)
    assert uncond.shape == (1, 4, 768)
    longer = reference(2, embedding=identity.features["embedding"] * 3)
    torch.testing.assert_close(adapter.reference_tokens(longer)[0], cond, atol=1e-5, rtol=1e-5)
    assert (cond[0] - cond[1]).abs().max() > 1e-3
    joined = adapter.tokens(identity, TokenOptions())
    assert joined.cond.shape == (1, 8, 768)
    assert joined.uncond is not None
    assert torch.equal(joined.uncond[:, :4], uncond)


def test_another_identity_is_told(adapter: RestorerIDAdapter) -> None:
    plain = Identity("arcface_buffalo_l", {"embedding": torch.ones(1, 512)})
    other = Identity("dlib_resnet", dict(reference().features))
    rgb = {("image_tokens" if name.endswith("bgr") else name): value for name, value in reference().features.items()}
    for identity in (plain, other, Identity("arcface_buffalo_l", rgb)):
        with pytest.raises(EncoderMismatch, match="Encode Restoration Reference"):
            adapter.reference_tokens(identity)


def test_a_file_without_projection_takes_faceid_plus(slim: Path, adapter: RestorerIDAdapter, tmp_path: Path) -> None:
    tensors = {name: value for name, value in load_file(slim).items() if not name.startswith("Adapter.")}
    save_file(tensors, tmp_path / "bare.safetensors")
    bare = registry.load(tmp_path / "bare.safetensors", kind="adapter")
    assert "faceid_plus" in bare.report.as_text()
    with pytest.raises(MissingModelFile, match="faceid_plus"):
        bare.reference_tokens(reference())
    with pytest.raises(EncoderMismatch, match="faceid-plus_sd15"):
        bare.with_projection(registry.load(write_standin("faceid-sd15", tmp_path, (8,)), kind="adapter"))
    plus = registry.load(write_standin("faceid-plus-sd15", tmp_path, (8,)), kind="adapter")
    completed = bare.with_projection(plus)
    expected = plus.network.image_proj.refined(
        torch.nn.functional.normalize(reference().features["embedding"]), reference().features["image_tokens_bgr"], None
    )
    assert torch.equal(completed.reference_tokens(reference())[0], expected)
    assert completed.digest != bare.digest


def test_the_shortcut_of_an_untrained_fir_adapter_is_exact() -> None:
    torch.manual_seed(0)
    fir = IDBalance(64, 32, 16, 24).requires_grad_(False)
    assert not fir.is_constant()
    first = fir.mlp_shared[0]
    torch.nn.init.zeros_(first.weight)
    torch.nn.init.constant_(first.bias, 0.1)
    assert not fir.is_constant()
    torch.nn.init.zeros_(first.bias)
    assert fir.is_constant()
    h, structure, tokens = torch.randn(2, 64, 5, 3), torch.randn(2, 32, 5, 3), torch.randn(2, 4, 24)
    long = fir(h, structure, fir.crossattn.keys_values(tokens))
    torch.testing.assert_close(fir.constant(h), long, atol=1e-6, rtol=1e-6)


def test_modulations_of_rows_follow_their_pictures() -> None:
    """Two chunks of two pictures: each row takes the map and the tokens of its picture."""
    torch.manual_seed(0)
    spade, fir = Spade(32, 32, 8).requires_grad_(False), IDBalance(32, 32, 8, 24).requires_grad_(False)
    h, structure, tokens = torch.randn(4, 32, 4, 4), torch.randn(2, 32, 4, 4), torch.randn(4, 3, 24)
    modulated, term = spade(h, structure), fir(h, structure, fir.crossattn.keys_values(tokens))
    shared = fir(h, structure[:1], fir.crossattn.keys_values(tokens[:2]))
    for row in range(4):
        one, place, reference_row = h[row : row + 1], structure[row % 2][None], tokens[row : row + 1]
        torch.testing.assert_close(modulated[row : row + 1], spade(one, place))
        torch.testing.assert_close(term[row : row + 1], fir(one, place, fir.crossattn.keys_values(reference_row)))
        chunk = tokens[row // 2][None]
        expected = fir(one, structure[:1], fir.crossattn.keys_values(chunk))
        torch.testing.assert_close(shared[row : row + 1], expected)


def test_structure_maps_halve_rounding_up() -> None:
    maps = StructureEncoder(32, 64)(torch.randn(1, 4, 9, 14), torch.tensor([7.0]))
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 9, 14), (64, 5, 7), (64, 3, 4), (64, 2, 2)]


@pytest.mark.parametrize("steps", [2, 10, 37, 50, 300])
def test_tables_of_any_number_of_steps(steps: int) -> None:
    table = schedule.tables(steps)
    assert len(table.alphas) == len(table.timesteps) == steps
    assert table.timesteps[0] == 0
    assert table.timesteps[-1] == 999
    exact = [Fraction(999 * number, steps - 1) for number in range(steps)]
    assert all(
        abs(told - place) <= Fraction(1, 2) + Fraction(1, 10**9)
        for told, place in zip(table.timesteps, exact, strict=True)
    )
    assert schedule.alpha_indices(steps) == [1000 // steps * number for number in range(steps)]
    assert float(table.sigmas[0]) == 0.0
    assert bool((table.alphas.diff() < 0).all())


def test_the_published_numbers_of_fifty_steps() -> None:
    table = schedule.tables(50)
    assert table.timesteps[:8] == [0, 20, 41, 61, 82, 102, 122, 143]
    assert float(table.levels[-1]) == pytest.approx(13.0431, abs=1e-4)
    assert float(table.alphas[0].sqrt()) == pytest.approx(0.999575, abs=1e-6)


@pytest.mark.parametrize(
    ("quality", "scale"), [(9.5, 1.0), (15, 0.577), (27.6, 0.164), (40, 0.047), (70, 0.002), (0, 2.586)]
)
def test_adaptive_scale(quality: float, scale: float) -> None:
    assert adaptive_scale(quality) == pytest.approx(scale, abs=6e-4)


def full_file(path: Path) -> dict[str, torch.Tensor]:
    """A small checkpoint of PyTorch Lightning with base model tensors in it."""
    structure, perceiver = "structcond_stage_model.", "Adapter.image_proj_model.perceiver_resampler.layers."
    large = (structure, *(f"{perceiver}{number}." for number in (1, 2, 3)))
    shapes = {
        **{name: shape for name, shape in keys.restorerid_slim((32,) * 4).items() if not name.startswith(large)},
        **{f"{structure}{name}": shape for name, shape in keys.structure_encoder(32).items()},
        "first_stage_model.a": (2,),
        "model.diffusion_model.out.2.weight": (4, 32, 3, 3),
    }
    tensors = filled_all(shapes, torch.float32)
    torch.save({"state_dict": tensors, "epoch": 3, "callbacks": {}}, path)
    return tensors


def test_the_converter_keeps_the_adapter_and_nothing_else(tmp_path: Path) -> None:
    tensors = full_file(tmp_path / "RestorerIDFull.ckpt")
    assert convert_restorerid.main([str(tmp_path / "RestorerIDFull.ckpt")]) == 0
    slim = tmp_path / "RestorerIDFull-slim.safetensors"
    written = load_file(slim)
    assert set(written) == {name for name in tensors if is_addition(name)}
    assert all(torch.equal(written[name], tensors[name].half()) for name in written)
    assert isinstance(FAMILY.recognise(read_header(slim)), Match)
    assert convert_restorerid.main([str(tmp_path / "RestorerIDFull.ckpt")]) == 1
    assert convert_restorerid.main([str(slim.with_name("none.ckpt"))]) == 1


def test_the_converter_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_standin("faceid-portrait-sd15", tmp_path, (8,))
    assert convert_restorerid.main([str(path)]) == 1
    assert "no spade" in capsys.readouterr().err
    assert not list(tmp_path.glob("*slim*"))
