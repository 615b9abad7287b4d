"""The W+ adapter on the real UNet: the official sum in every layer, masks, rows, several identities, its cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import conditioning, sample, tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.encoders.e4e.stylegan2 import Generator
from likeness_pack.adapters.errors import BaseModelMismatch, MissingModelFile
from likeness_pack.adapters.identity import Identity
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.inject import direction_files
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.attention import IdentityAttention
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.host import folder_paths
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.model_folders import register_model_folders
from likeness_pack.nodes import w_plus as nodes
from likeness_pack.nodes.common import Schema
from likeness_pack.tools.standins.fill import filled_all
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from tiny_portraits import w_plus_identity, write_w_plus
from torch import Tensor
from unet_calls import call_unet, patched_calls

HEADS = 8


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SD1.5 of real layout."""
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def tensors(module_folders: ModuleFolders) -> tuple[Path, dict[str, Tensor]]:
    """A W+ adapter for it: file and tensors."""
    path = module_folders.mktemp("wplus") / "any.bin"
    return path, write_w_plus(path)


@pytest.fixture(scope="module")
def loaded(tensors: tuple[Path, dict[str, Tensor]]) -> LoadedAdapter:
    """The same, read through the registry."""
    return LoadedAdapter(registry.load(tensors[0]))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention written out, independent of the host's."""
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def official(
    loaded: LoadedAdapter, file: dict[str, Tensor], identity: Identity, layer: int, z: Tensor, rows: list[int]
) -> Tensor:
    """The authors' residual attention of z (B, N, C), each row with the tokens of its kind."""
    tokens = loaded.adapter.tokens(identity, TokenOptions())
    assert tokens.uncond is not None
    each = torch.cat([(tokens.cond, tokens.uncond)[row] for row in rows])
    q, k, v = (file[f"wplus_adapter.{2 * layer + 1}.to_{role}_wplus.weight"] for role in "qkv")
    return attend(z @ q.T, each @ k.T, each @ v.T)


def slot(model: Any, layer: Any) -> Any:
    return model.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key]


def inputs(width: int, rows: int, places: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    return tuple(torch.randn(rows, count, width, generator=generator) for count in (places, 7, 7))  # type: ignore[return-value]


EXTRA = {"n_heads": HEADS, "original_shape": [4, 4, 8, 8]}


@pytest.mark.parametrize("pattern", [[1, 0], [0, 1], [0], [0, 0, 1]])
def test_every_layer_gives_the_official_sum(
    model: Any, loaded: LoadedAdapter, tensors: tuple[Path, dict[str, Tensor]], pattern: list[int]
) -> None:
    """Queries come from the text attention's result; two pictures in each chunk."""
    patched = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.7))
    for number, layer in enumerate(unet_layers(model)):
        q, k, v = inputs(layer.width, 2 * len(pattern), 5)
        z = attend(q, k, v)
        rows = [row for row in pattern for _ in range(2)]
        expected = z + 0.7 * official(loaded, tensors[1], w_plus_identity(), number, z, rows)
        got = slot(patched, layer)(q, k, v, {**EXTRA, "cond_or_uncond": pattern}, unknown_argument=1)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_two_identities_and_another_adapter_read_the_text_alone(
    model: Any, loaded: LoadedAdapter, tensors: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    """Each residual term sees the text attention, not what other identities add; masks and strengths are each one's
    own.
    """
    faceid = LoadedAdapter(registry.load(write_faceid(tmp_path / "f.bin", "SD15")))
    mask = torch.rand(8, 8)
    patched = apply_identity(model, loaded, w_plus_identity(1), ApplyOptions(strength=0.6, mask=mask))
    patched = apply_identity(patched, faceid, arcface_identity(), ApplyOptions(strength=0.5, lora_strength=0.0))
    patched = apply_identity(patched, loaded, w_plus_identity(2), ApplyOptions(strength=-0.4))
    layer = unet_layers(model)[0]
    q, k, v = inputs(layer.width, 2)
    z = attend(q, k, v)
    side = faceid.adapter.tokens(arcface_identity(), TokenOptions())
    pairs = [faceid.adapter.keys_values(tokens)[0] for tokens in (side.uncond, side.cond)]  # type: ignore[attr-defined]
    face = attend(q, torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs]))
    one, two = (official(loaded, tensors[1], w_plus_identity(seed), 0, z, [1, 0]) for seed in (1, 2))
    got = slot(patched, layer)(q, k, v, {**EXTRA, "cond_or_uncond": [1, 0]})
    expected = z + 0.6 * mask.view(1, 64, 1) * one + 0.5 * face - 0.4 * two
    torch.testing.assert_close(got, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (1,)])
def test_every_layer_is_called(model: Any, loaded: LoadedAdapter, rows: tuple[int, ...]) -> None:
    patched = apply_identity(model, loaded, w_plus_identity(), ApplyOptions())
    assert patched_calls(patched, "SD15", rows) == 16


def test_without_the_node_nothing_is_left(model: Any, loaded: LoadedAdapter) -> None:
    before = sample(model)
    patched = sample(apply_identity(model, loaded, w_plus_identity(), ApplyOptions()))
    assert (patched - before).abs().max() > 1e-3
    assert torch.equal(sample(model), before)
    assert torch.equal(sample(apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.0))), before)
    never = ApplyOptions(start_percent=1.0, end_percent=1.0)
    assert torch.equal(sample(apply_identity(model, loaded, w_plus_identity(), never)), before)


def test_outside_its_mask_the_term_is_exactly_zero(model: Any, loaded: LoadedAdapter) -> None:
    """One mask for each of two pictures, in both chunks."""
    masks = torch.zeros(2, 8, 8)
    masks[0, :, 4:], masks[1, :4] = 1, 1
    patched = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(mask=masks))
    plain = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.0))
    for layer in (unet_layers(model)[0], unet_layers(model)[14]):
        q, k, v = inputs(layer.width, 4)
        extra = {**EXTRA, "cond_or_uncond": [1, 0]}
        added = (slot(patched, layer)(q, k, v, extra) - slot(plain, layer)(q, k, v, extra)).view(2, 2, 8, 8, -1)
        assert added[:, masks == 0].abs().max() == 0
        assert added[:, masks == 1].abs().amax(-1).min() > 0


def test_negative_rows_can_be_left_alone(model: Any, loaded: LoadedAdapter) -> None:
    options = ApplyOptions(tokens=TokenOptions(negative=False))
    patched = apply_identity(model, loaded, w_plus_identity(), options)
    layer = unet_layers(model)[3]
    q, k, v = inputs(layer.width, 2, 5)
    free = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.0))
    extra = {**EXTRA, "cond_or_uncond": [1, 0]}
    got, text = slot(patched, layer)(q, k, v, extra), slot(free, layer)(q, k, v, extra)
    assert torch.equal(got[0], text[0])
    assert (got[1] - text[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("people", "limit"), [(1, 1.10), (2, 1.15), (4, 1.25)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_costs_little_more(model: Any, loaded: LoadedAdapter, people: int, limit: float, masked: bool) -> None:
    """Further identities cost no operation more than the first; nothing is read back."""
    state = CallState()

    def step(of: Any) -> Any:
        call_unet(of, "SD15", (1, 0), state)
        return count_calls(lambda: call_unet(of, "SD15", (1, 0), state, loaded=True))

    patched = model
    for number in range(people):
        mask = torch.rand(8, 8) if masked else None
        patched = apply_identity(patched, loaded, w_plus_identity(number), ApplyOptions(mask=mask))
    base, counted = step(model), step(patched)
    assert counted.compute <= limit * base.compute, f"{counted.compute} against {base.compute}"
    assert counted.synchronisations == base.synchronisations
    assert counted.copies == base.copies


def test_applying_again_with_another_strength_replaces(model: Any, loaded: LoadedAdapter) -> None:
    one = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.3))
    two = apply_identity(one, loaded, w_plus_identity(), ApplyOptions(strength=0.9))
    once = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(strength=0.9))
    patch = slot(two, unet_layers(model)[0])
    assert isinstance(patch, IdentityAttention)
    assert [term.strength for term in patch.terms] == [0.9]
    assert torch.equal(sample(two), sample(once))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(loaded: LoadedAdapter, dtype: torch.dtype) -> None:
    half = sample(apply_identity(tiny_model("SD15", dtype=dtype), loaded, w_plus_identity(), ApplyOptions()), steps=1)
    full = sample(apply_identity(tiny_model("SD15"), loaded, w_plus_identity(), ApplyOptions()), steps=1)
    assert (half.float() - full).abs().mean() < 0.1 * full.abs().mean()


def test_batches_and_prompts_of_unequal_length(model: Any, loaded: LoadedAdapter) -> None:
    patched = apply_identity(model, loaded, w_plus_identity(), ApplyOptions(mask=torch.rand(3, 8, 8)))
    both = (conditioning("SD15", tokens=77, seed=1), conditioning("SD15", tokens=40, seed=2))
    assert torch.isfinite(sample(patched, *both, batch=3)).all()


def test_another_base_model_is_refused(loaded: LoadedAdapter) -> None:
    with pytest.raises(BaseModelMismatch, match="16 cross-attention layers"):
        apply_identity(tiny_model("SDXL"), loaded, w_plus_identity(), ApplyOptions())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A models folder of its own, in place of the host's."""
    table = folder_paths().folder_names_and_paths
    register_model_folders()
    names = ("face_adapters", "face_encoders")
    before = {name: table[name] for name in names}
    for name in names:
        (tmp_path / name).mkdir()
        table[name] = ([str(tmp_path / name)], {".pt", ".safetensors"})
    yield tmp_path
    for name in names:
        table[name] = before[name]


def required(node: type) -> Schema:
    return node.INPUT_TYPES()["required"]  # type: ignore[attr-defined]


def test_the_edit_node_lists_and_applies_directions(folder: Path) -> None:
    """Sub-folders are listed; a name that leaves the folder is none."""
    target = folder / "face_adapters" / "w_directions" / "interfacegan 方向"
    target.mkdir(parents=True)
    step = torch.randn(1, 512)
    torch.save(step, target / "age.pt")
    (name,) = required(nodes.LikenessEditWPlus)["direction"][0]
    assert name == "interfacegan 方向/age.pt"
    result = nodes.LikenessEditWPlus().edit(w_plus_identity(), name, "smile", -2.0, last_row=3)["result"]
    codes, before = result[0].features["w_plus"], w_plus_identity().features["w_plus"]
    torch.testing.assert_close(codes[:, :4], before[:, :4] - 2 * step)
    assert torch.equal(codes[:, 4:], before[:, 4:])
    for wrong in ("../../secret.pt", str(target / "age.pt"), "none.npy"):
        with pytest.raises(MissingModelFile, match="w_directions"):
            direction_files.find_direction(wrong)


def test_the_preview_draws_one_picture_for_each_code(folder: Path) -> None:
    """A generator of few levels in the layout of the e4e file, its mapping network beside it."""
    with torch.device("meta"):
        network = Generator((512, 512))
    shapes = {f"decoder.{name}": tuple(value.shape) for name, value in network.state_dict().items()}
    shapes |= {"decoder.style.1.weight": (4, 4), "encoder.other": (2,)}
    content = {"state_dict": filled_all(shapes, torch.float32), "latent_avg": torch.zeros(18, 512)}
    torch.save(content, folder / "face_encoders" / "e4e_ffhq_encode.pt")
    (images,) = nodes.LikenessPreviewWPlus().draw(w_plus_identity(photos=2), "e4e_ffhq_encode.pt")
    assert images.shape == (2, 8, 8, 3)
    assert images.min() >= 0 and images.max() <= 1
    assert (images[0] - images[1]).abs().max() > 1e-4


def test_the_stage_node_gives_the_official_start(model: Any) -> None:
    """Seven of thirty steps of the scheduler 'normal' are off."""
    strength, start = nodes.LikenessWPlusStage().settings("in the wild", 30, 20.0)
    sampling = model.get_model_object("model_sampling")
    sigmas = sampling.sigma(torch.linspace(999, 0, 30))
    limit = float(sampling.percent_to_sigma(start))
    assert (strength, int((sigmas > limit).sum())) == (1.0, 7)
    assert nodes.LikenessWPlusStage().settings("face", 50, 20.0)[0] == 0.8
