"""ID-Animator's files and tokens, AnimateDiff's motion files, strengths by frame."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.id_animator.motion import read_motion
from likeness_pack.adapters.families.id_animator.motion_arch import MotionLayer
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.inject.frame_strength import BadSchedule, frame_strengths
from likeness_pack.tools.standins.fill import filled_all
from sparse_files import write_sparse_safetensors
from tiny_adapters import widths
from tiny_portraits import (
    aligned_identity,
    animator_shapes,
    motion_shapes,
    published_animator,
    write_animator,
    write_motion,
)


def test_the_published_layout_is_recognised(tmp_path: Path) -> None:
    """211 tensors, 61 817 856 numbers: the published file by names and shapes."""
    shapes = published_animator()
    assert (len(shapes), sum(math.prod(shape) for shape in shapes.values())) == (211, 61_817_856)
    path = write_sparse_safetensors(tmp_path / "any.safetensors", shapes, torch.float16)
    match = recognise(read_header(path))
    report = match.family.describe(read_header(path), match)
    assert (report.family, report.base, report.tokens, report.layers) == ("id_animator", "sd15", 16, 16)
    assert report.commercial is None


def test_both_layouts_are_the_same_adapter(tmp_path: Path) -> None:
    tensors = write_animator(tmp_path / "dump.ckpt")
    parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "face_adapter": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts["image_proj" if part == "image_proj_model" else "face_adapter"][rest] = value
    torch.save(parts, tmp_path / "parts.bin")
    dumped, nested = load(tmp_path / "dump.ckpt"), load(tmp_path / "parts.bin")
    first, second = (one.tokens(aligned_identity(), TokenOptions()).cond for one in (dumped, nested))
    assert torch.equal(first, second)
    assert dumped.low_rank().keys() == nested.low_rank().keys()


def test_every_tensor_of_a_file_is_used_unchanged(tmp_path: Path) -> None:
    tensors = write_animator(tmp_path / "a.ckpt")
    adapter = load(tmp_path / "a.ckpt")
    used = {f"image_proj_model.{name}": value for name, value in adapter.network.resampler.state_dict().items()}
    for number, maps in enumerate(adapter.network.maps):
        used |= {f"adapter_modules.{2 * number + 1}.{name}": value for name, value in maps.state_dict().items()}
    for (index, role), weights in adapter.low_rank().items():
        used[f"adapter_modules.{index}.to_{role}_lora.down.weight"] = weights.down
        used[f"adapter_modules.{index}.to_{role}_lora.up.weight"] = weights.up
    assert used.keys() == tensors.keys()
    assert all(torch.equal(used[name], tensors[name]) for name in tensors)
    assert {index % 2 for index, _ in adapter.low_rank()} == {1}


def test_photos_are_averaged_after_the_resampler(tmp_path: Path) -> None:
    write_animator(tmp_path / "a.ckpt")
    adapter = load(tmp_path / "a.ckpt")
    three = aligned_identity(photos=3)
    tokens = adapter.tokens(three, TokenOptions())
    each = [
        adapter.tokens(Identity("clip_vision", {**three.features, "image_tokens": row[None]}), TokenOptions()).cond
        for row in three.features["image_tokens"]
    ]
    assert torch.allclose(tokens.cond, torch.cat(each).mean(0, keepdim=True), atol=1e-5)
    assert torch.allclose(tokens.uncond, adapter.network.resampler(three.features["image_tokens_zero"]), atol=1e-5)
    assert adapter.tokens(three, TokenOptions(negative=False)).uncond is None


def test_a_picture_without_a_face_does_not_enter_the_mean(tmp_path: Path) -> None:
    write_animator(tmp_path / "a.ckpt")
    adapter = load(tmp_path / "a.ckpt")
    one = aligned_identity()
    padded = torch.cat([one.features["image_tokens"], torch.zeros(1, 6, 20)])
    two = Identity("clip_vision", {**one.features, "image_tokens": padded})
    assert torch.equal(adapter.tokens(two, TokenOptions()).cond, adapter.tokens(one, TokenOptions()).cond)


@pytest.mark.parametrize("features", [{"embedding": torch.ones(1, 512)}, {"image_tokens": torch.ones(1, 6, 21)}])
def test_identities_without_fitting_patches_are_refused(tmp_path: Path, features: dict[str, torch.Tensor]) -> None:
    write_animator(tmp_path / "a.ckpt")
    with pytest.raises(EncoderMismatch, match=r"image_tokens \(N, patches, 20\).*Encode Aligned Face"):
        load(tmp_path / "a.ckpt").tokens(Identity("any", features), TokenOptions())


def test_tensors_of_no_part_are_named_and_not_read(tmp_path: Path) -> None:
    tensors = filled_all(animator_shapes(widths("SD15")), torch.float32)
    torch.save({**tensors, "unet.conv_in.weight": torch.ones(1)}, tmp_path / "a.ckpt")
    assert "not read: tensors under unet" in load(tmp_path / "a.ckpt").report.notes


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("adapter_modules.31.to_k_face.weight", "31.to_k_face"),
        ("adapter_modules.5.to_v_lora.up.weight", "1 missing: 5"),
    ],
)
def test_an_incomplete_file_is_a_named_error(tmp_path: Path, lost: str, told: str) -> None:
    shapes = {name: shape for name, shape in animator_shapes(widths("SD15")).items() if name != lost}
    torch.save(filled_all(shapes, torch.float32), tmp_path / "cut.ckpt")
    with pytest.raises(KeyMismatch, match=told):
        load(tmp_path / "cut.ckpt")


def test_relatives_are_refused_with_the_reason(tmp_path: Path) -> None:
    """A W+ dump shares the prefix of the attention, an IP-Adapter dump that of the projection."""
    shapes = {"image_proj_model.latents": (1, 4, 768), "image_proj_model.proj_in.weight": (768, 1280)}
    shapes |= {"adapter_modules.1.to_k_ip.weight": (320, 768), "adapter_modules.1.to_v_ip.weight": (320, 768)}
    with pytest.raises(UnknownCheckpoint) as error:
        recognise(read_header(write_sparse_safetensors(tmp_path / "a.safetensors", shapes)), "encoder")
    with pytest.raises(UnknownCheckpoint) as error:
        recognise(
            read_header(write_sparse_safetensors(tmp_path / "b.safetensors", {"adapter_modules.1.x": (1,)})), "adapter"
        )
    assert "id_animator" in error.value.reasons


def test_motion_files_are_read_whole(tmp_path: Path) -> None:
    tensors = write_motion(tmp_path / "mm.ckpt")
    network, report = read_motion(tmp_path / "mm.ckpt")
    assert network.state_dict().keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in network.state_dict().items())
    assert (len(network.layers()), "AnimateDiff motion module" in report) == (21, True)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (motion_shapes((8, 8, 8, 8), positions=24), "first generation"),
        ({"down_blocks.0.motion_modules.0.x": (1,)}, "no down_blocks.0.motion_modules.0"),
    ],
)
def test_other_motion_files_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], reason: str) -> None:
    path = write_sparse_safetensors(tmp_path / "mm.safetensors", shapes)
    with pytest.raises(UnknownCheckpoint, match=reason):
        read_motion(path)


def test_a_motion_file_in_the_adapter_loader_says_where_it_belongs(tmp_path: Path) -> None:
    path = write_sparse_safetensors(tmp_path / "mm.safetensors", motion_shapes((8, 8, 8, 8)))
    with pytest.raises(UnknownCheckpoint, match="AnimateDiff motion module.*Apply Motion Module"):
        load(path)


def test_clips_of_one_batch_do_not_touch() -> None:
    """Two clips together give what each gives alone, and every place of the picture is on its own."""
    layer = MotionLayer(32, 32)
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(8, 32, 3, 3)
    both = layer(x, 4)
    torch.testing.assert_close(both[:4], layer(x[:4], 4), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[4:], layer(x[4:], 4), atol=1e-5, rtol=1e-5)
    assert (layer(x[:4], 1) - both[:4]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("text", "between", "values"),
    [
        ("0.8", "linear", [0.8] * 5),
        ("1, 0.5, 0, 0.5; 1", "linear", [1, 0.5, 0, 0.5, 1]),
        ("0: 1, 4: 0", "linear", [1, 0.75, 0.5, 0.25, 0]),
        ("0：1，4：0", "linear", [1, 0.75, 0.5, 0.25, 0]),
        ("0: 1\n-1: 0", "smooth", [1, 0.84375, 0.5, 0.15625, 0]),
        ("3: 0.2, 1: 1.2", "hold", [1.2, 1.2, 1.2, 0.2, 0.2]),
    ],
)
def test_schedules(text: str, between: str, values: list[float]) -> None:
    strengths = frame_strengths(text, 5, between)  # type: ignore[arg-type]
    assert strengths.values == pytest.approx(values)
    assert strengths.peak == pytest.approx(max(values))
    masks = strengths.mask()
    assert torch.allclose(masks[:, 3, 3] * strengths.peak, torch.tensor(values), atol=1e-6)


def test_a_schedule_and_a_mask_multiply() -> None:
    mask = torch.rand(7, 9)
    masks = frame_strengths("0: 2, 3: 0", 4).mask(mask)
    for number, share in enumerate((1, 2 / 3, 1 / 3, 0)):
        assert torch.allclose(masks[number], mask * share, atol=1e-6)
    assert frame_strengths("0", 4).mask(mask).abs().max() == 0


@pytest.mark.parametrize(
    "text", ["", "1, 2", "0: 1, 0: 2", "5: 1", "-6: 1", "a", "0: -1", "nan", "0: 1, 0.5", "1.5: 1"]
)
def test_other_schedules_are_refused(text: str) -> None:
    with pytest.raises(BadSchedule):
        frame_strengths(text, 5)
