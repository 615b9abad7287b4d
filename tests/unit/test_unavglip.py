"""UnAvgLip's files: the order of attentions, both projections, the LoRA, what is refused and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import golden_folder
from identities import arcface_identity, transface_identity
from key_lists import shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch
from likeness_pack.adapters.families.musetalk.layout import unet_shapes
from likeness_pack.adapters.families.unavglip.arch import NumberOfFaces
from likeness_pack.adapters.families.unavglip.family import FAMILY
from likeness_pack.tools.standins.adapters import fact_blocks
from likeness_pack.tools.standins.fill import filled_all
from likeness_pack.tools.standins.musetalk import unavglip
from module_folders import ModuleFolders
from safetensors.torch import save_file

WIDTHS = (32, 64, 64, 64)
INDEX_MAP = "unavglip_index_map.json"


def write(path: Path, shapes: dict[str, Any]) -> Path:
    save_file(filled_all({name: tuple(shape) for name, shape in shapes.items()}, torch.float32), path)
    return path


@pytest.fixture(scope="module")
def small(module_folders: ModuleFolders) -> Path:
    return write(module_folders.mktemp("unavglip") / "small.safetensors", unavglip(WIDTHS, 4, 2))


def test_the_formula_gives_the_training_codes_list() -> None:
    published = {name: tuple(shape) for name, shape in shapes_of("unavglip_checkpoint", golden_folder()).items()}
    assert unavglip() == published


def test_attentions_are_counted_down_up_middle() -> None:
    """Index 30 and 31 are the middle block's; even indices are attn1."""
    blocks = fact_blocks((320, 640, 1280, 1280))
    expected = [
        [2 * number + part, f"{path}.attn{part + 1}.processor", width, 384 if part else None]
        for number, (path, width) in enumerate(blocks.items())
        for part in (0, 1)
    ]
    assert [row[0] for row in expected] == list(range(32)) and "mid_block" in expected[30][1]
    path = golden_folder() / INDEX_MAP
    if path.exists():
        assert json.loads(path.read_text(encoding="utf-8")) == expected


def test_a_file_gives_tokens_keys_values_and_a_lora(small: Path) -> None:
    adapter = registry.load(small)
    assert (adapter.report.variant, adapter.report.tokens, adapter.report.layers) == ("resampler", 4, 16)
    tokens = adapter.tokens(arcface_identity(photos=3), TokenOptions())
    assert tokens.cond.shape == (1, 4, 384) and tokens.uncond is None
    pairs = adapter.keys_values(tokens.cond)
    assert [k.shape[-1] for k, _ in pairs] == list(adapter.layer_widths) == list(fact_blocks(WIDTHS).values())
    low_rank = adapter.low_rank()
    assert len(low_rank) == 32 * 4 and low_rank[1, "k"].down.shape == (4, 384) and low_rank[1, "k"].up.shape == (32, 4)


def test_the_length_of_an_embedding_does_not_matter(small: Path) -> None:
    """Training code and inference disagree on it by a factor of twenty; the official inference has unit length."""
    adapter, identity = registry.load(small), arcface_identity()
    unit = type(identity)(identity.encoder, {"embedding": identity.features["embedding"] / 7}, identity.photos)
    first, second = (adapter.tokens(one, TokenOptions()).cond for one in (identity, unit))
    assert torch.allclose(first, second, atol=1e-5)


def test_the_copy_of_the_unet_inside_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = unavglip(WIDTHS, 4, 2) | {f"unet.{name}": shape for name, shape in unet_shapes(WIDTHS).items()}
    inside = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
    path = write(tmp_path / "pytorch_model.safetensors", whole | {inside: (4, 32)})
    adapter = registry.load(path)
    assert adapter.report.family == "unavglip" and "the UNet inside is not used" in adapter.report.as_text()


def test_the_two_projections_are_told_by_their_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "decoder.safetensors", unavglip(WIDTHS, 4, 2, decoder=True))
    adapter = registry.load(path)
    assert adapter.report.variant == "perceiver" and "its published text cannot run" in adapter.report.as_text()
    assert adapter.tokens(arcface_identity(photos=4), TokenOptions()).cond.shape == (1, 4, 384)
    with pytest.raises(NumberOfFaces, match="expected 1 face or 4, found 3; give 1 or 4 photos, or average them"):
        adapter.tokens(arcface_identity(photos=3), TokenOptions())


def test_other_encoders_are_refused(small: Path) -> None:
    with pytest.raises(EncoderMismatch, match="found embedding .1, 512., tokens .1, 144, 512. of the encoder trans"):
        registry.load(small).tokens(transface_identity(), TokenOptions())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"adapter_modules.7.to_k_ip.weight": None}, "face keys (to_k_ip) in 15 of 16 layers"),
        (
            {"image_proj_model.proj_in.weight": (384, 1280)},
            "a projection of shape (384, 1280); UnAvgLip's is (384, 512)",
        ),
        ({"image_proj_model.latents": None}, "parts of UnAvgLip without its tokens"),
        ({"optimizer.x": (1,)}, "further parts (optimizer)"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    shapes = {name: shape for name, shape in (unavglip(WIDTHS, 4, 2) | change).items() if shape is not None}
    assert FAMILY.recognise(read_header(write(tmp_path / "other.safetensors", shapes))) == reason


def test_files_of_ip_adapters_are_not_ours(tmp_path: Path) -> None:
    narrow = {
        name: (shape[0], 768) if name.endswith(("k_ip.weight", "v_ip.weight")) else shape
        for name, shape in unavglip(WIDTHS, 4, 2).items()
    }
    header = read_header(write(tmp_path / "sd15.safetensors", narrow))
    assert FAMILY.recognise(header) == "face keys 768 wide; UnAvgLip's are 384, as MuseTalk's sound is"


def test_a_leftover_key_is_a_named_error(tmp_path: Path) -> None:
    shapes = unavglip(WIDTHS, 4, 2) | {"adapter_modules.3.alpha": (1,)}
    with pytest.raises(KeyMismatch, match="1 left over: 3"):
        registry.load(write(tmp_path / "more.safetensors", shapes))
