"""AM-Adapter without a host: files, matcher, augmented attention, maps, schedule."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import golden_folder
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.am_adapter import attention
from likeness_pack.adapters.families.am_adapter.arch import Matcher, match
from likeness_pack.adapters.families.am_adapter.controlnext.arch import ControlNeXt, inject_control
from likeness_pack.adapters.families.am_adapter.ddim import ddim_step, moves, times
from likeness_pack.adapters.families.am_adapter.maps import agreement, class_ids, overlap
from likeness_pack.adapters.identity import Identity
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (9, 16, 32, 16, 8)


def matcher_shapes() -> dict[str, tuple[int, ...]]:
    """The published layout of the matcher, written out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for encoder in range(3):
        for layer, (inputs, outputs) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
            prefix = f"encoders.{encoder}.conv4d.{layer}"
            shapes[f"{prefix}.0.query_conv.weight"] = (outputs, inputs, 1, 1)
            shapes[f"{prefix}.0.supp_conv.weight"] = (outputs, inputs, 3, 3)
            for name in ("0.query_conv.bias", "0.supp_conv.bias", "1.weight", "1.bias"):
                shapes[f"{prefix}.{name}"] = (outputs,)
    return shapes


def controlnext_shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in ControlNeXt().state_dict().items()}


def filled_matcher(seed: int = 0) -> Matcher:
    torch.manual_seed(seed)
    matcher = Matcher(WIDTHS).requires_grad_(False)
    for parameter in matcher.parameters():
        parameter.normal_(0, 0.5)
    return matcher.eval()


def test_the_published_layouts_have_their_sizes() -> None:
    own = {name: tuple(value.shape) for name, value in Matcher(WIDTHS).state_dict().items()}
    assert own == matcher_shapes()
    assert (len(own), sum(math.prod(shape) for shape in own.values())) == (72, 39_744)
    control = controlnext_shapes()
    assert (len(control), sum(math.prod(shape) for shape in control.values())) == (52, 3_526_400)


@pytest.mark.parametrize("name", ["x.safetensors", "matcher-25000.pth", "名 前.bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_are_recognised_under_any_name(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    write = write_sparse_safetensors if name.endswith("s") else write_zero_storage_torch
    for family, shapes in (("am_adapter", matcher_shapes()), ("am_adapter_controlnext", controlnext_shapes())):
        report = registry.describe(write(tmp_path / name, shapes, dtype), kind="adapter")
        assert (report.family, report.base) == (family, "sd15")
        assert "never published" in report.weight_licence


def _key_lists() -> list[Path]:
    return [path for path in sorted(golden_folder().glob("*.keys.json")) if not path.name.startswith("am_adapter")]


@pytest.mark.parametrize("path", _key_lists(), ids=lambda path: path.stem)
def test_no_other_file_is_taken(tmp_path: Path, path: Path) -> None:
    import json

    keys = json.loads(path.read_text(encoding="utf-8"))
    shapes = {name: shape for name, shape in keys.items() if isinstance(shape, list)}
    if not shapes or any(isinstance(size, list) for shape in shapes.values() for size in shape):
        shapes = {"other.weight": [1]}
    header = read_header(write_sparse_safetensors(tmp_path / "a", shapes, torch.float16))
    ours = [family for family in registry.families("adapter") if family.id.startswith("am_adapter")]
    assert len(ours) == 2
    assert [family.recognise(header) for family in ours if not isinstance(family.recognise(header), str)] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoders.0.conv4d.0.0.supp_conv.weight": (16, 9, 5, 5)}, "kernels"),
        ({"encoders.0.conv4d.1.0.supp_conv.weight": (32, 8, 3, 3)}, "kernels"),
        ({"encoders.0.conv4d.0.0.query_conv.weight": (16,)}, "kernels"),
    ],
)
def test_other_kernels_are_refused_with_a_reason(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=words):
        registry.describe(write_sparse_safetensors(tmp_path / "a", matcher_shapes() | change), kind="adapter")


def test_files_are_loaded_strictly_and_compute_the_same(tmp_path: Path) -> None:
    matcher = filled_matcher()
    save_file(matcher.state_dict(), tmp_path / "a")
    loaded = registry.load(tmp_path / "a", kind="adapter")
    pairs = torch.randn(1, 9, 2, 2, 3, 3)
    assert torch.equal(loaded.network(pairs), matcher(pairs))
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    with pytest.raises(EncoderMismatch, match="Apply AM-Adapter"):
        loaded.tokens(Identity("some_encoder", {"embedding": torch.ones(1, 4)}), TokenOptions())
    lacking = {name: value for name, value in matcher.state_dict().items() if name != "encoders.2.conv4d.3.1.bias"}
    save_file(lacking, tmp_path / "b")
    with pytest.raises(KeyMismatch, match="1 missing"):
        registry.load(tmp_path / "b", kind="adapter")


def four_dimensional(matcher: Matcher, pairs: Tensor) -> Tensor:
    """The encoder as two separate convolutions and the host library's norm: an independent form of `match`."""
    x = pairs
    for layer in matcher.encoders[0].conv4d:
        conv, norm = layer[0], layer[1]
        b, c, hq, wq, hs, ws = x.shape
        over_query = conv.query_conv(x.permute(0, 4, 5, 1, 2, 3).reshape(-1, c, hq, wq))
        over_query = over_query.view(b, hs, ws, -1, hq, wq).permute(0, 3, 4, 5, 1, 2)
        over_keys = conv.supp_conv(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, c, hs, ws))
        over_keys = over_keys.view(b, hq, wq, -1, hs, ws).permute(0, 3, 1, 2, 4, 5)
        x = functional.relu(norm((over_query + over_keys).flatten(2)).view_as(over_keys))
    return x


def test_folded_layers_equal_separate_convolutions() -> None:
    matcher, pairs = filled_matcher(), torch.randn(2, 9, 3, 4, 5, 2)
    torch.testing.assert_close(matcher(pairs), four_dimensional(matcher, pairs), atol=1e-5, rtol=1e-5)


def test_only_the_first_encoder_counts() -> None:
    matcher, pairs = filled_matcher(), torch.randn(1, 9, 2, 2, 2, 2)
    before = matcher(pairs)
    for parameter in [*matcher.encoders[1].parameters(), *matcher.encoders[2].parameters()]:
        parameter.zero_()
    assert torch.equal(matcher(pairs), before)


def layer(tokens: int, rows: int = 2, width: int = 64) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(rows, tokens, width) for name in ("q", "k", "v", "bank_k", "bank_v")}


def by_matrices(x: dict[str, Tensor], bias: Tensor) -> Tensor:
    """Augmented attention with whole matrices."""
    q, k, v, bank_k, bank_v = (value.unflatten(2, (8, -1)).transpose(1, 2) for value in x.values())
    logits = torch.cat((q @ k.mT, q @ bank_k.mT + bias * 8**0.5), -1) / 8**0.5
    return (logits.softmax(-1) @ torch.cat((v, bank_v), 2)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("at_once", [1, 4096, 2**25])
@pytest.mark.parametrize("grid", [8, 4])
def test_blocks_equal_whole_matrices(monkeypatch: pytest.MonkeyPatch, at_once: int, grid: int) -> None:
    """Whatever fits at once, and where logits are resized (grid 4) or not."""
    monkeypatch.setattr(attention, "_AT_ONCE", at_once)
    x, matcher = layer(64), filled_matcher()
    same = (torch.rand(1, 64, 64) > 0.5).float()
    bias = attention.soft_bias(x["q"], x["bank_k"], 8, matcher.folded(torch.device("cpu")), same, grid)
    got = attention.attend(*x.values(), heads=8, bias=bias)
    torch.testing.assert_close(got, by_matrices(x, expected_bias(x, matcher, same, grid)), atol=1e-5, rtol=1e-4)


def expected_bias(x: dict[str, Tensor], matcher: Matcher, same: Tensor, grid: int) -> Tensor:
    """R - max(R) / 4 by resizing whole matrices of logits, as the official processor does."""
    q, k = (x[name].unflatten(2, (8, -1)).transpose(1, 2) for name in ("q", "bank_k"))
    logits = q @ k.mT / 8**0.5
    size = min(64, grid * grid)
    small = functional.interpolate(logits, size=(size, size), mode="bilinear") if size < 64 else logits
    channel = functional.interpolate(same[:, None], size=(size, size), mode="nearest").expand(len(q), -1, -1, -1)
    side = int(size**0.5)
    pairs = torch.cat((small, channel), 1).view(len(q), 9, side, side, side, side)
    found = four_dimensional(matcher, pairs).reshape(len(q), 8, size, size)
    bias = found - found.max() / 4
    return functional.interpolate(bias, size=(64, 64), mode="bilinear") if size < 64 else bias


def test_hard_bias_closes_other_classes() -> None:
    x = layer(64, rows=1)
    same = torch.zeros(1, 16, 16)
    bias = attention.hard_bias(same, 64, grid=4)
    alone = functional.scaled_dot_product_attention(
        *(x[name].unflatten(2, (8, -1)).transpose(1, 2) for name in ("q", "k", "v"))
    )
    got = attention.attend(*x.values(), heads=8, bias=bias)
    torch.testing.assert_close(got, alone.transpose(1, 2).flatten(2), atol=1e-6, rtol=1e-5)
    everything = attention.attend(*x.values(), heads=8, bias=attention.hard_bias(same + 1, 64, grid=4))
    torch.testing.assert_close(everything, attention.attend(*x.values(), heads=8, bias=None), atol=1e-6, rtol=1e-5)


def test_match_is_never_negative() -> None:
    found = match(torch.randn(1, 4, 9, 2, 2), filled_matcher().folded(torch.device("cpu")))
    assert found.shape == (1, 4, 8, 2, 2)
    assert (found >= 0).all() and found.max() > 0


def colours(ids: list[list[int]], scale: int = 16) -> Tensor:
    """A map of numbered colours, each cell ``scale`` pixels wide."""
    palette = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    image = palette[torch.tensor(ids)].movedim(-1, 0)
    return image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def test_agreement_is_indexed_exemplar_first() -> None:
    same = agreement(colours([[0, 1], [1, 1]]), colours([[1, 1], [1, 0]]), side=2)
    assert same.tolist() == [[0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_official_resizing_mixes_colours_and_labels_do_not() -> None:
    """A border that falls between grid points makes a colour of its own, which agrees with neither side."""
    exemplar, red = torch.zeros(3, 6, 6), torch.zeros(3, 6, 6)
    exemplar[0, :, 2:] = red[0] = 1
    official, labels = agreement(exemplar, red, side=4), agreement(exemplar, red, "labels", side=4)
    assert official.view(4, 4, 16)[:, :, 0].tolist() == [[0, 0, 1, 1]] * 4
    assert labels.view(4, 4, 16)[:, :, 0].tolist() == [[0, 1, 1, 1]] * 4


def test_overlap_prefers_the_same_layout() -> None:
    target = colours([[0, 1], [2, 3]])
    assert overlap(target, target) == 1.0
    assert overlap(target, colours([[3, 2], [1, 0]])) == 0.0
    near, far = overlap(target, colours([[0, 1], [2, 2]])), overlap(target, colours([[1, 0], [2, 2]]))
    assert 0 < far < near < 1
    assert len(class_ids(target).unique()) == 4


def test_the_official_times() -> None:
    official = [999, 946, 894, 841, 789, 736, 684, 631, 578, 526]
    official += [473, 421, 368, 315, 263, 210, 158, 105, 53, 0]
    assert times(20) == official
    steps = moves(20, torch.linspace(1, 0.001, 1000))
    assert [move.time for move in steps] == official
    alphas = torch.linspace(1, 0.001, 1000)
    assert steps[1].alpha_next == float(alphas[896])
    assert steps[-1].alpha_next == steps[-1].alpha == 1.0


def test_a_step_leads_back_and_forth() -> None:
    latent, noise = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    there = ddim_step(latent, noise, 0.5, 0.8)
    torch.testing.assert_close(ddim_step(there, noise, 0.8, 0.5), latent, atol=1e-6, rtol=1e-5)


def test_injection_keeps_statistics_and_strength_zero_keeps_everything() -> None:
    hidden, control = torch.randn(2, 8, 4, 4) * 3 + 1, torch.randn(1, 8, 8, 8)
    assert torch.equal(inject_control(hidden, control, 0.0), hidden)
    added = inject_control(hidden, control, 1.0) - hidden
    torch.testing.assert_close(added.mean((1, 2, 3)), hidden.mean((1, 2, 3)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(added.std((1, 2, 3)), hidden.std((1, 2, 3)), atol=1e-4, rtol=1e-4)


def test_the_part_without_time_is_the_same_for_all_times() -> None:
    torch.manual_seed(0)
    network: nn.Module = ControlNeXt().eval().requires_grad_(False)
    picture = torch.rand(1, 3, 64, 64)
    features = network.stem(picture)
    for time in (3.0, 700.0):
        at = torch.tensor([time])
        assert torch.equal(network.control(features, at), network(picture, at))
    assert not torch.equal(network(picture, torch.tensor([3.0])), network(picture, torch.tensor([700.0])))
