"""DreamFit files: recognised by content, read strictly, factors folded in, dead tensors told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import DATA, golden_folder
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.dreamfit import layout
from likeness_pack.adapters.families.dreamfit.adapter import DreamFitDiT, DreamFitUNet, WeightPart
from likeness_pack.adapters.families.dreamfit.family import FAMILY
from sparse_files import write_sparse_safetensors, write_zero_storage_torch

WIDTH, RANK = 12, 4
MIDDLE = "middle_block.1.transformer_blocks.0."


def unet_shapes() -> dict[str, tuple[int, ...]]:
    """The adapter part of an SD1.5 file, every layer as narrow as can be."""
    shapes: dict[str, tuple[int, ...]] = {}
    for target in layout.unet_targets():
        down, up = layout.ends(target.source)
        shapes[f"target_unet.{down}"], shapes[f"target_unet.{up}"] = (RANK, WIDTH), (WIDTH, RANK)
    for block in layout.READ_BLOCKS:
        shapes[f"target_unet.{block}{layout.REF_K}"] = shapes[f"target_unet.{block}{layout.REF_V}"] = (WIDTH, WIDTH)
    return shapes


def dit_shapes(double: int = 2, single: int = 3) -> dict[str, tuple[int, ...]]:
    """A Flux file with the dead LoRA."""
    sources = [target.source for target in layout.dit_targets(double, single)]
    shapes: dict[str, tuple[int, ...]] = {name: () for name in layout.dead_names(double)}
    shapes |= {name: () for source in sources for name in layout.ends(source)}
    return {name: (RANK, WIDTH) if ".down." in name else (WIDTH, RANK) for name in shapes}


def written(path: Path, shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(tensors, path)
    return tensors


def key_list(name: str) -> dict[str, Any]:
    for folder in (golden_folder(), DATA):
        if (folder / name).exists():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    return pytest.skip(f"{name} is not at hand")


def test_counts_of_the_published_adapter() -> None:
    """278 LoRAs and ten pairs of keys and values in SD1.5; 323 LoRAs that act, of 342, in Flux."""
    assert len(list(layout.unet_targets())) == 278
    assert len(layout.READ_BLOCKS) == 10 and layout.READ_BLOCKS[0].startswith("middle_block")
    assert len(list(layout.dit_targets(19, 38))) == 323
    assert 2 * 323 + len(layout.dead_names(19)) == 684


def test_the_published_sd15_names_are_exactly_ours() -> None:
    names = layout.encoder_names(key_list("dreamfit_sd15_checkpoint.keys.json")).values()
    ours = {name for target in layout.unet_targets() for name in layout.ends(target.source)}
    ours |= {block + end for block in layout.READ_BLOCKS for end in (layout.REF_K, layout.REF_V)}
    assert {name for name in names if layout.is_adapter_name(name)} == ours
    weights = {target.weight for target in layout.unet_targets()}
    assert weights <= set(names)
    assert sum(not layout.is_adapter_name(name) for name in names) == layout.BASE_TENSORS


@pytest.mark.parametrize(
    ("stem", "dtype", "layers"), [("dreamfit_sd15", torch.float32, 10), ("dreamfit_flux", torch.bfloat16, 57)]
)
def test_published_files_are_recognised_under_any_name(
    tmp_path: Path, stem: str, dtype: torch.dtype, layers: int
) -> None:
    shapes = key_list(f"{stem}_checkpoint.keys.json")
    report = registry.describe(write_sparse_safetensors(tmp_path / "x1.safetensors", shapes, dtype))
    assert (report.family, report.layers, report.commercial) == ("dreamfit", layers, None)
    nested = write_zero_storage_torch(tmp_path / "epoch=3.ckpt", {"state_dict": shapes}, dtype)
    assert registry.describe(nested).base == report.base
    adapter = registry.load(nested)
    assert isinstance(adapter, DreamFitUNet if stem.endswith("sd15") else DreamFitDiT)


def test_no_other_published_file_is_taken(tmp_path: Path) -> None:
    lists = sorted(golden_folder().glob("*.keys.json"))
    for path in [path for path in lists if not path.name.startswith("dreamfit")]:
        shapes = json.loads(path.read_text(encoding="utf-8"))
        flat = {name: shape for name, shape in shapes.items() if isinstance(shape, list) and all(map(_whole, shape))}
        if flat:
            header = read_header(write_sparse_safetensors(tmp_path / "x.safetensors", flat))
            assert isinstance(FAMILY.recognise(header), str), path.name


def _whole(size: Any) -> bool:
    return isinstance(size, int)


def test_factors_of_the_sd15_file(tmp_path: Path) -> None:
    """Attention LoRA counts once; the other kind 8 / rank."""
    tensors = written(tmp_path / "a.ckpt", unet_shapes())
    adapter = registry.load(tmp_path / "a.ckpt")
    attention = adapter.changes[WeightPart(f"{MIDDLE}attn1.to_out.0.weight")]
    assert torch.equal(attention.up, tensors[f"target_unet.{MIDDLE}attn1.to_out_lora.up.weight"])
    other = adapter.changes[WeightPart(f"{MIDDLE}ff.net.2.weight")]
    assert torch.equal(other.up, tensors[f"target_unet.{MIDDLE}ff.net.2.lora_layer.up.weight"] * (8 / RANK))
    assert [layer.width for layer in adapter.layers] == [WIDTH] * 10
    assert torch.equal(adapter.layers[0].ref_to_v.weight, tensors[f"target_unet.{MIDDLE}attn1.ref_to_v.weight"])
    assert not adapter.has_base and adapter.base_tensors() == {}


def test_the_adapter_alone_without_the_marker(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt", {name.removeprefix("target_unet."): s for name, s in unet_shapes().items()})
    assert "adapter alone" in registry.load(tmp_path / "a.ckpt").report.as_text()


def test_what_lies_outside_the_encoder_is_left_as_the_authors_loader_leaves_it(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt", unet_shapes() | {"cond_stage.position": (3, 3)})
    assert registry.load(tmp_path / "a.ckpt").report.layers == 10


def test_a_base_unet_in_part_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt", unet_shapes() | {"target_unet.time_embed.0.weight": (WIDTH, WIDTH)})
    with pytest.raises(KeyMismatch, match="686 tensors of the base UNet, or none, found 1"):
        registry.load(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "lost", [f"target_unet.{MIDDLE}attn2.to_q_lora.up.weight", f"target_unet.{MIDDLE}attn1.ref_to_v.weight"]
)
def test_a_missing_tensor_is_named(tmp_path: Path, lost: str) -> None:
    shapes = unet_shapes()
    del shapes[lost]
    written(tmp_path / "a.ckpt", shapes)
    with pytest.raises(KeyMismatch, match="1 missing: middle_block.1"):
        registry.load(tmp_path / "a.ckpt")


def test_the_flux_file_goes_to_the_rows_of_fused_weights(tmp_path: Path) -> None:
    tensors = written(tmp_path / "a.bin", dit_shapes())
    adapter = registry.load(tmp_path / "a.bin")
    assert (adapter.double, adapter.single, adapter.width) == (2, 3, WIDTH)
    for part, end in enumerate("qkv"):
        for weight, block in (("img_attn.qkv", "double_blocks.1."), ("linear1", "single_blocks.2.")):
            change = adapter.changes[WeightPart(f"{block}{weight}.weight", part * WIDTH, WIDTH)]
            assert torch.equal(change.up, tensors[f"{block}processor.ref_qkv_lora_{end}.up.weight"] * 0.5)
            assert torch.equal(change.down, tensors[f"{block}processor.ref_qkv_lora_{end}.down.weight"])
    assert not any("txt_mod" in part.name for part in adapter.changes)
    assert len(adapter.changes) == 2 * 7 + 3 * 5


def test_unknown_tensors_of_a_flux_file_are_told(tmp_path: Path) -> None:
    written(tmp_path / "a.bin", dit_shapes() | {"extra.one.weight": (2, 2)})
    assert (
        "1 tensors of unknown use are left aside: extra.one (1)" in registry.load(tmp_path / "a.bin").report.as_text()
    )


def test_a_block_without_its_lora_is_refused(tmp_path: Path) -> None:
    shapes = dit_shapes()
    del shapes["single_blocks.1.processor.ref_proj_lora.down.weight"]
    written(tmp_path / "a.bin", shapes)
    with pytest.raises(KeyMismatch, match="1 missing: single_blocks.1"):
        registry.load(tmp_path / "a.bin")


def test_ranks_that_differ_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.bin", dit_shapes() | {"double_blocks.0.img_mlp_lora_1.up.weight": (WIDTH, RANK + 1)})
    with pytest.raises(KeyMismatch, match="of one rank"):
        registry.load(tmp_path / "a.bin")


def test_a_piece_of_a_flux_file_is_unknown(tmp_path: Path) -> None:
    written(tmp_path / "a.bin", {"double_blocks.0.processor.ref_qkv_lora_q.down.weight": (RANK, WIDTH)})
    with pytest.raises(UnknownCheckpoint):
        registry.load(tmp_path / "a.bin")


def test_it_takes_no_identity(tmp_path: Path) -> None:
    written(tmp_path / "a.bin", dit_shapes())
    with pytest.raises(EncoderMismatch, match="use 'Encode Garment'"):
        registry.load(tmp_path / "a.bin").tokens(arcface_identity(), TokenOptions())
