"""HunyuanVideo-Avatar's files: names, sizes, recognition, fp8 scales, and the small functions of its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import avatar_models as avatar
import pytest
import torch
from harness import golden_folder
from key_lists import shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch
from likeness_pack.adapters.families.hunyuan_avatar import fp8, layout
from likeness_pack.adapters.families.hunyuan_avatar.adapter import HunyuanAvatarAdapter
from likeness_pack.adapters.families.hunyuan_avatar.arch import AvatarNetwork, AvatarSizes, attend, grouped
from likeness_pack.adapters.identity import Identity
from likeness_pack.tools.standins import hunyuan_avatar as standin
from safetensors.torch import save_file
from torch import Tensor

DOUBLE, SINGLE, TEXT = 2, 1, 32


def official() -> Mapping[str, Any]:
    """Names and shapes of the official checkpoint."""
    return shapes_of("hyavatar_full", golden_folder())


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return standin.filled(standin.checkpoint(standin.HEAD, DOUBLE, SINGLE, TEXT), dtype)


def loaded(path: Path) -> HunyuanAvatarAdapter:
    adapter = registry.load(path)
    assert isinstance(adapter, HunyuanAvatarAdapter)
    return adapter


def test_every_official_name_is_known() -> None:
    """852 of HunyuanVideo and 94 added; the stand-in's formula gives the same at full size."""
    names = official()
    added = {name for name in names if layout.is_added(name)}
    assert len(names) == 946 and len(added) == 94
    assert layout.depths(names) == (20, 40)
    assert layout.base_names(20, 40) == set(names) - added
    assert layout.base_differences(layout.base_in(names)) == ([], [])
    with torch.device("meta"):
        network = AvatarNetwork(AvatarSizes())
    assert {n: list(p.shape) for n, p in network.state_dict().items()} == {n: list(names[n]) for n in added}
    shapes = standin.base(3072) | standin.added(3072, 1024, 1024)
    assert {name: list(shape) for name, shape in shapes.items()} == {name: list(shape) for name, shape in names.items()}


def test_the_host_s_names_are_the_published_table() -> None:
    path = golden_folder() / "hyavatar_comfy_keymap.json"
    if path.exists():
        table = json.loads(path.read_text(encoding="utf-8"))
        assert {name: layout.host_name(name) for name in table} == table
    renamed = {name: layout.host_name(name) for name in official()}
    assert len(set(renamed.values())) == len(renamed)
    assert sum(name != host for name, host in renamed.items()) == 668
    assert all(layout.host_name(host) == host for host in renamed.values())


def test_block_linears_are_what_fp8_files_quantise() -> None:
    quantised = [name for name in official() if layout.is_block_linear(name)]
    assert len(quantised) == 20 * 2 * 5 + 40 * 3
    assert all(len(official()[name]) == 2 for name in quantised)


@pytest.mark.parametrize("kind", ["module", "safetensors", "added"])
def test_a_file_is_recognised_and_read_whatever_it_is_packed_in(kind: str, tmp_path: Path) -> None:
    weights = tensors(torch.bfloat16)
    path = tmp_path / "a name"
    if kind == "module":
        torch.save(standin.packed(weights), path)
    else:
        kept = {name: tensor for name, tensor in weights.items() if kind != "added" or layout.is_added(name)}
        save_file(kept, path)
    adapter = loaded(path)
    report = adapter.report
    assert (report.family, report.base, report.layers, report.dtype) == (
        "hunyuan_avatar",
        "hunyuan_video",
        1,
        "bfloat16",
    )
    assert report.variant == ("added" if kind == "added" else "whole") and adapter.has_base == (kind != "added")
    assert "Tencent Hunyuan Community License" in report.as_text()
    assert adapter.places() == (1,)
    both = [*adapter.network.parameters(), *adapter.step_network.parameters()]
    assert len(both) == sum(layout.is_added(name) for name in weights) and len({id(one) for one in both}) == len(both)
    told = (
        sum(one.nbytes for one in adapter.network.parameters()),
        sum(p.nbytes for p in adapter.step_network.parameters()),
    )
    assert (report.encode_bytes, report.sample_bytes) == told
    if kind != "added":
        base = adapter.base_tensors()
        assert set(base) == {layout.host_name(name) for name in weights if not layout.is_added(name)}
        assert torch.equal(base["double_blocks.0.img_attn.qkv.weight"], weights["double_blocks.0.img_attn_qkv.weight"])


def test_stock_hunyuan_video_is_refused_with_a_reason(tmp_path: Path) -> None:
    save_file(standin.filled(standin.base(standin.HEAD, 1, 1, TEXT)), tmp_path / "stock.safetensors")
    header = read_header(tmp_path / "stock.safetensors")
    assert layout.sizes_in(header) == "no audio_adapter_blocks.0.to_q.weight beside audio_proj.proj1.weight"
    wrong = tensors() | {"motion_exp.mlp.0.weight": torch.zeros(48, 256)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    assert layout.sizes_in(read_header(tmp_path / "wrong.safetensors")) == "parts that do not fit a width of 128"


def test_a_missing_added_tensor_is_named(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in tensors().items() if name != "fps_proj.mlp.2.bias"}
    save_file(weights, tmp_path / "less.safetensors")
    with pytest.raises(KeyMismatch, match=r"1 missing: fps_proj\.mlp"):
        loaded(tmp_path / "less.safetensors")


def test_it_takes_sound_and_no_identity(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    adapter = loaded(tmp_path / "a.safetensors")
    someone = Identity("arcface_antelopev2", {"embedding": torch.zeros(1, 512)}, photos=("0" * 64,))
    with pytest.raises(EncoderMismatch, match="audio features and a character picture, found an identity"):
        adapter.tokens(someone, TokenOptions())
    other = AudioFeatures("musetalk_v1", torch.zeros(1, 1, 10, 5, 384), 25.0, 640, (0.0,), ("0" * 64,))
    with pytest.raises(EncoderMismatch, match="audio features for HunyuanVideo-Avatar"):
        adapter.check_audio(other)
    adapter.check_audio(avatar.sound(2, 3))


def test_keys_and_values_of_frames_are_those_of_the_grouped_sound(tmp_path: Path) -> None:
    """Frame by frame, put together afterwards, as a whole clip at once; silence has keys of its own."""
    save_file(tensors(), tmp_path / "a.safetensors")
    adapter = loaded(tmp_path / "a.safetensors")
    windows = avatar.sound(1, 9).features[0]
    network, block = adapter._parts, adapter._parts.adapters[0]
    k, v = adapter.audio_keys_values(windows)[0]
    video = torch.randn(1, 3, 6, standin.HEAD, generator=torch.Generator().manual_seed(3))
    expected = block(grouped(network.audio_proj(windows[None])), video)
    places = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]])
    heard = attend(adapter.queries(0, video), *(part[places].flatten(1, 2)[None] for part in (k, v)))
    torch.testing.assert_close(adapter.added(0, heard), expected, atol=1e-5, rtol=1e-5)
    silent = adapter.audio_keys_values(adapter.silence())[0]
    zeros = adapter.audio_keys_values(torch.zeros_like(windows[:1]))[0]
    assert torch.equal(silent[0], zeros[0]) and silent[0].abs().max() > 0
    assert not adapter.added(0, torch.zeros(1, 2, 64)).any()


def test_scales_are_read_as_numbers_or_tensors(tmp_path: Path) -> None:
    torch.save(
        {"module": {"double_blocks.0.img_mod.linear": torch.tensor([0.5]), "single_blocks.0.linear1": 2.0}},
        tmp_path / "m.pt",
    )
    found = fp8.read_scales(tmp_path / "m.pt")
    assert {name: float(scale) for name, scale in found.items()} == {
        "double_blocks.0.img_mod.linear": 0.5,
        "single_blocks.0.linear1": 2.0,
    }
    assert all(scale.shape == () and scale.dtype == torch.float32 for scale in found.values())
    save_file({"a.b": torch.tensor([3.0])}, tmp_path / "m.safetensors")
    assert float(fp8.read_scales(tmp_path / "m.safetensors")["a.b"]) == 3.0
    torch.save({"module": {"x": torch.zeros(2)}}, tmp_path / "bad.pt")
    with pytest.raises(BadCheckpoint, match="one scale for each layer, found 2 numbers at module.x"):
        fp8.read_scales(tmp_path / "bad.pt")
    with pytest.raises(BadCheckpoint):
        fp8.read_scales(tmp_path / "nothing.pt")


def test_a_weight_on_the_grid_is_told_from_a_trained_one() -> None:
    trained = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    grid = trained.to(fp8.FP8)
    assert fp8.on_grid(grid) and fp8.on_grid(grid.bfloat16()) and fp8.on_grid(grid.float())
    assert not fp8.on_grid(trained) and not fp8.on_grid(trained.bfloat16()) and not fp8.on_grid(torch.zeros(4, 4))


def test_a_scale_of_no_layer_is_named() -> None:
    weights = {name: tensor for name, tensor in tensors().items() if not layout.is_added(name)}
    scales = {name.removesuffix(".weight"): torch.tensor(1.0) for name in weights if layout.is_block_linear(name)}
    with pytest.raises(KeyMismatch, match=r"1 of no layer: single_blocks\.9 \(1\)"):
        fp8.with_scales(weights, scales | {"single_blocks.9.linear1": torch.tensor(1.0)}, "file")
    scaled = fp8.with_scales(weights, scales, "file")
    assert scaled["double_blocks.0.img_attn_qkv.weight"].dtype == fp8.FP8
    assert scaled["double_blocks.0.img_attn_qkv.scale_weight"].shape == ()
    assert scaled["txt_in.input_embedder.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "frames", "expected"),
    [(1, 4, [0, 0, 0, 0]), (3, 6, [0, 1, 1, 1, 1, 2]), (4, 4, [0, 1, 2, 3]), (9, 2, [0, 1]), (1, 1, [0])],
)
def test_a_still_picture_of_few_frames_stands_for_all(given: int, frames: int, expected: list[int]) -> None:
    """A picture encoded as nine frames is first, second again and again, last."""
    from likeness_pack.inject.hunyuan_avatar_character import frame_places

    assert frame_places(given, frames) == expected


def test_positions_before_the_video_begin_at_its_left_edge() -> None:
    from likeness_pack.inject.hunyuan_avatar_parts import unshifted

    grid = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0), torch.arange(3.0))
    before = torch.stack((-torch.ones(6), grid[:6, 1], grid[:6, 2]), dim=-1)
    moved = before + torch.tensor([0.0, 0.0, 3.0])
    text = torch.zeros(2, 3)
    for first in (before, moved):
        found = unshifted(torch.cat((first, grid, text))[None].expand(2, -1, -1))
        assert torch.equal(found, torch.cat((before, grid, text))[None].expand(2, -1, -1))
    assert torch.equal(unshifted(grid[None]), grid[None])
