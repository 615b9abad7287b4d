"""W+ adapter files, tokens, folded maps, directions, mixes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import (
    BadCheckpoint,
    EncoderMismatch,
    IdentityMismatch,
    KeyMismatch,
    UnknownCheckpoint,
)
from likeness_pack.adapters.families.w_plus.directions import ATTRIBUTES, component_direction, edit, read_direction
from likeness_pack.adapters.families.w_plus.edits import edited_identity, mixed_identity, official_start
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.tools.standins.fill import filled_all
from sparse_files import nested_by_part, write_sparse_safetensors
from tiny_adapters import widths
from tiny_portraits import SD15_WIDTHS, w_plus_identity, w_plus_shapes, write_w_plus

HEADS = 8


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention written out."""
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def test_the_published_layout_is_recognised(tmp_path: Path) -> None:
    path = write_sparse_safetensors(tmp_path / "any.safetensors", w_plus_shapes(SD15_WIDTHS), torch.float16)
    match = recognise(read_header(path))
    report = match.family.describe(read_header(path), match)
    assert (report.family, report.base, report.tokens, report.layers) == ("w_plus", "sd15", 4, 16)
    assert report.commercial is False


def test_the_trainers_dump_is_the_same_adapter(tmp_path: Path) -> None:
    tensors = write_w_plus(tmp_path / "w.bin")
    names = {"w_proj": "w_proj_model", "wplus_adapter": "adapter_modules"}
    dump = {f"{names[name.split('.')[0]]}.{name.partition('.')[2]}": value for name, value in tensors.items()}
    torch.save({**dump, "unet.conv_in.weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    first, second = (load(tmp_path / name) for name in ("w.bin", "pytorch_model.bin"))
    tokens = [one.tokens(w_plus_identity(), TokenOptions()) for one in (first, second)]
    assert torch.equal(tokens[0].cond, tokens[1].cond)
    assert all(
        torch.equal(a[0], b[0])
        for a, b in zip(first.keys_values(tokens[0].cond), second.keys_values(tokens[1].cond), strict=True)
    )


def test_every_tensor_of_a_file_is_used_unchanged(tmp_path: Path) -> None:
    tensors = write_w_plus(tmp_path / "w.bin")
    adapter = load(tmp_path / "w.bin")
    used = {f"w_proj.{name}": value for name, value in adapter.network.mapper.state_dict().items()}
    for number, maps in enumerate(adapter.network.maps):
        used |= {f"wplus_adapter.{2 * number + 1}.{name}": value for name, value in maps.state_dict().items()}
    assert used.keys() == tensors.keys()
    assert all(torch.equal(used[name], tensors[name]) for name in tensors)
    assert list(adapter.layer_widths) == widths("SD15")


def test_the_folded_maps_are_the_official_attention(tmp_path: Path) -> None:
    tensors = write_w_plus(tmp_path / "w.bin")
    adapter = load(tmp_path / "w.bin")
    tokens = adapter.tokens(w_plus_identity(), TokenOptions()).cond
    for number, (logits, values) in enumerate(adapter.keys_values(tokens)):
        name = f"wplus_adapter.{2 * number + 1}."
        q, k, v = (tensors[f"{name}to_{role}_wplus.weight"] for role in "qkv")
        z = torch.randn(1, 5, q.shape[0])
        expected = _attend(z @ q.T, tokens @ k.T, tokens @ v.T)
        weights = (z @ logits.transpose(1, 2)).unflatten(-1, (HEADS, -1)).softmax(-1).flatten(-2)
        torch.testing.assert_close(weights @ values, expected, atol=1e-5, rtol=1e-5)


def test_several_codes_are_averaged_and_zeros_are_nobody(tmp_path: Path) -> None:
    write_w_plus(tmp_path / "w.bin")
    adapter = load(tmp_path / "w.bin")
    three = w_plus_identity(photos=3)
    codes = three.features["w_plus"]
    mean = adapter.tokens(Identity("e4e", {"w_plus": codes.mean(0, keepdim=True)}), TokenOptions())
    padded = Identity("e4e", {"w_plus": torch.cat([codes, torch.zeros(1, 18, 512)])})
    got = adapter.tokens(padded, TokenOptions())
    torch.testing.assert_close(got.cond, mean.cond, atol=1e-5, rtol=1e-5)
    bias = adapter.network.mapper.norm.bias
    torch.testing.assert_close(got.uncond, bias.expand(1, 4, -1))


@pytest.mark.parametrize(
    "identity",
    [
        Identity("arcface_buffalo_l", {"embedding": torch.ones(1, 512)}),
        Identity("e4e", {"w_plus": torch.ones(1, 14, 512)}),
        Identity("other", {"w_plus": torch.ones(1, 18, 512)}),
    ],
)
def test_other_identities_are_refused(tmp_path: Path, identity: Identity) -> None:
    write_w_plus(tmp_path / "w.bin")
    with pytest.raises(EncoderMismatch, match=r"w_plus \(N, 18, 512\) of the encoder e4e"):
        load(tmp_path / "w.bin").tokens(identity, TokenOptions())


@pytest.mark.parametrize("lost", ["w_proj.proj_1.weight", "wplus_adapter.31.to_q_wplus.weight"])
def test_an_incomplete_file_is_a_named_error(tmp_path: Path, lost: str) -> None:
    shapes = {name: shape for name, shape in w_plus_shapes(widths("SD15")).items() if name != lost}
    torch.save(nested_by_part(filled_all(shapes, torch.float32)), tmp_path / "cut.bin")
    with pytest.raises(KeyMismatch, match=lost.split(".")[1]):
        load(tmp_path / "cut.bin")


def test_linear_directions_move_all_rows_and_those_by_row_the_first_eight(tmp_path: Path) -> None:
    codes = torch.randn(2, 18, 512)
    step, by_row = torch.randn(1, 512), torch.randn(18, 512).double()
    torch.save(step, tmp_path / "age.pt")
    np.save(tmp_path / "smile.npy", by_row.numpy())
    linear, rows = read_direction(tmp_path / "age.pt", "smile"), read_direction(tmp_path / "smile.npy", "smile")
    torch.testing.assert_close(edit(codes, linear, -1.5), codes - 1.5 * step)
    moved = edit(codes, rows, 2.0)
    torch.testing.assert_close(moved[:, :8], codes[:, :8] + 2 * by_row[:8].float())
    assert torch.equal(moved[:, 8:], codes[:, 8:])
    assert torch.equal(edit(codes, rows, 2.0, (9, 10))[:, :9], codes[:, :9])
    assert torch.equal(edit(codes, rows, 0.0), codes)


def test_components_reach_a_coordinate(tmp_path: Path) -> None:
    """The strength is where the first row ends up, in standard deviations, whatever the code was."""
    mean, deviation = torch.randn(1, 512), torch.rand(80) + 0.5
    components = torch.linalg.qr(torch.randn(512, 80)).Q.T[:, None].contiguous()
    torch.save({"mean": mean, "comp": components, "std": deviation}, tmp_path / "pca.pt")
    direction = read_direction(tmp_path / "pca.pt", "face_roundness")
    index, start, end = ATTRIBUTES["face_roundness"]
    assert (direction.rows, start) == ((start, end), 0)
    codes = torch.randn(3, 18, 512)
    once = edit(codes, direction, 2.5)
    reached = (once[:, 0] - mean) @ components[index, 0] / deviation[index]
    torch.testing.assert_close(reached, torch.full((3,), 2.5), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edit(once, direction, 2.5), once, atol=1e-4, rtol=1e-4)
    assert torch.equal(once[:, end:], codes[:, end:])


def test_the_table_of_attributes_is_whole() -> None:
    assert len(ATTRIBUTES) == 42
    assert all(0 <= index < 80 and 0 <= start < end <= 18 for index, start, end in ATTRIBUTES.values())


def test_other_direction_files_are_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(3, 5), tmp_path / "a.pt")
    (tmp_path / "b.npy").write_bytes(b"not numpy")
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UnknownCheckpoint, match=r"\(3, 5\)"):
        read_direction(tmp_path / "a.pt", "smile")
    for name in ("b.npy", "c.npy"):
        with pytest.raises(BadCheckpoint):
            read_direction(tmp_path / name, "smile")
    with pytest.raises(UnknownCheckpoint, match="42|5 components"):
        component_direction(torch.zeros(1, 512), torch.zeros(5, 1, 512), torch.ones(5), "smile")


def test_an_edited_identity_keeps_all_else() -> None:
    identity = w_plus_identity(photos=2)
    direction = component_direction(torch.zeros(1, 512), torch.eye(80, 512)[:, None], torch.ones(80), "smile")
    edited = edited_identity(identity, direction, 3.0)
    assert (edited.encoder, edited.photos, edited.masked) == ("e4e", identity.photos, True)
    assert edited.notes[-1] == "edited: smile 3"
    assert edited.digest != identity.digest
    assert torch.equal(edited.features["w_plus"][:, 5:], identity.features["w_plus"][:, 5:])


def test_mixing_takes_rows_by_amount() -> None:
    one, two = w_plus_identity(1), w_plus_identity(2, photos=3)
    a, b = one.features["w_plus"], two.features["w_plus"]
    mixed = mixed_identity(one, two, (4, 9), 0.25).features["w_plus"]
    assert mixed.shape == (3, 18, 512)
    torch.testing.assert_close(mixed[:, 4:9], (0.75 * a + 0.25 * b)[:, 4:9])
    assert torch.equal(mixed[:, :4], a[:, :4].expand(3, -1, -1))
    assert torch.equal(mixed_identity(one, two, (0, 18), 1.0).features["w_plus"], b)
    assert mixed_identity(one, two, (4, 9), 0.25).photos == one.photos + two.photos


@pytest.mark.parametrize("rows", [(5, 5), (-1, 3), (0, 19), (9, 4)])
def test_rows_that_are_not_there_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(IdentityMismatch, match="rows of W"):
        mixed_identity(w_plus_identity(1), w_plus_identity(2), rows, 0.5)


def test_numbers_of_faces_must_fit() -> None:
    with pytest.raises(IdentityMismatch, match="2 and 3 faces"):
        mixed_identity(w_plus_identity(1, photos=2), w_plus_identity(2, photos=3), (0, 8), 0.5)


@pytest.mark.parametrize(("steps", "percent", "off"), [(30, 20, 7), (30, 0, 1), (50, 20, 11), (200, 50, 31)])
def test_the_delayed_start_is_the_official_one(steps: int, percent: float, off: int) -> None:
    """Of evenly spread steps, so many lie before the start."""
    start = official_start(steps, percent)
    assert sum(number / (steps - 1) < start for number in range(steps)) == off
