"""FaceID on the real UNet: every layer, every order of rows, strength, steps, masks, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import ATTENTION_LAYERS, CONTEXT_WIDTH, conditioning, sample, tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import BaseModelMismatch, PatchIncomplete
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.attention import IdentityAttention
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from unet_calls import call_unet, patched_calls


@pytest.fixture(scope="module", params=["SD15", "SDXL"])
def kind(request: pytest.FixtureRequest) -> str:
    """The base model's layout."""
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    """A tiny model of real layout."""
    return tiny_model(kind)


@pytest.fixture(scope="module")
def loaded(kind: str, module_folders: ModuleFolders) -> LoadedAdapter:
    """A FaceID file of fitting widths, read through the registry."""
    path = write_faceid(module_folders.mktemp("faceid") / "any name.bin", kind)
    return LoadedAdapter(registry.load(path))


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (1,), (0, 0, 1)])
def test_every_layer_is_called(kind: str, model: Any, loaded: LoadedAdapter, rows: tuple[int, ...]) -> None:
    """The patch of each layer runs once in a forward pass, whatever the order of rows."""
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions())
    assert patched_calls(patched, kind, rows) == ATTENTION_LAYERS[kind]


def test_layer_gives_the_official_sum(kind: str, model: Any, loaded: LoadedAdapter) -> None:
    """A slot returns text attention plus strength times identity attention, each row with its own tokens."""
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions(strength=0.7))
    layers = unet_layers(model)
    tokens = loaded.adapter.tokens(arcface_identity(), TokenOptions())
    for number in (0, len(layers) // 2, len(layers) - 1):
        layer, (heads, width) = layers[number], (layers[number].heads, layers[number].width)
        patch = patched.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key]
        q, k, v = torch.randn(6, 4, width), torch.randn(6, 7, width), torch.randn(6, 7, width)
        got = patch(q, k, v, {"n_heads": heads, "cond_or_uncond": [1, 0, 0]}, unknown_argument=1)
        pairs = [loaded.adapter.keys_values(side)[number] for side in (tokens.cond, tokens.uncond)]
        order = [1, 1, 0, 0, 0, 0]
        idk, idv = (torch.cat([pairs[row][part] for row in order]) for part in (0, 1))
        expected = _attend(q, k, v, heads) + 0.7 * _attend(q, idk, idv, heads)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention written out, independent of the host's."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def test_row_order_does_not_matter(kind: str, model: Any, loaded: LoadedAdapter) -> None:
    """Positive and negative rows give the same numbers together in either order, and in calls of their own."""
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions(lora_strength=0.0))
    negative_first = call_unet(patched, kind, (1, 0))
    positive_first = call_unet(patched, kind, (0, 1))
    torch.testing.assert_close(negative_first[0], positive_first[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(negative_first[1], positive_first[0], atol=1e-5, rtol=1e-5)
    alone = torch.cat([call_unet(patched, kind, (1,)), call_unet(patched, kind, (0,))])
    torch.testing.assert_close(negative_first, alone, atol=1e-5, rtol=1e-5)


def test_identity_changes_the_picture_and_leaves_no_trace(model: Any, loaded: LoadedAdapter) -> None:
    """The patched clone differs; the model that came in samples bit-equal before and after."""
    before = sample(model)
    patched = sample(apply_identity(model, loaded, arcface_identity(), ApplyOptions()))
    assert (patched - before).abs().max() > 1e-3
    assert torch.equal(sample(model), before)
    assert not model.model_options["transformer_options"].get("patches_replace")


def test_zero_strength_is_bit_equal(model: Any, loaded: LoadedAdapter) -> None:
    """Strength 0 without the LoRA computes what the plain model computes."""
    off = apply_identity(model, loaded, arcface_identity(), ApplyOptions(strength=0.0, lora_strength=0.0))
    assert torch.equal(sample(off), sample(model))


def test_lora_acts_once_for_two_identities(model: Any, loaded: LoadedAdapter) -> None:
    """A second identity of the same file does not apply its LoRA again, and a new LoRA strength replaces the old
    one.
    """
    one = apply_identity(model, loaded, arcface_identity(0), ApplyOptions(lora_strength=0.5))
    two = apply_identity(one, loaded, arcface_identity(1), ApplyOptions(lora_strength=1.0))
    assert len(one.patches) == 8 * len(unet_layers(model))
    assert {len(entries) for entries in two.patches.values()} == {1}
    assert {entries[0][0] for entries in two.patches.values()} == {1.0}
    assert {entries[0][0] for entries in one.patches.values()} == {0.5}


def test_lora_is_the_published_product(model: Any, loaded: LoadedAdapter) -> None:
    """With strength 0 the model equals one whose weights had up @ down added by hand."""
    low_rank = loaded.adapter.low_rank()
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions(strength=0.0))
    layers = unet_layers(model)
    ends = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    by_hand = {
        f"{layers[index // 2].weights}.attn{index % 2 + 1}.{ends[end]}.weight": ("diff", (change.up @ change.down,))
        for (index, end), change in low_rank.items()
    }
    reference = model.clone()
    assert len(reference.add_patches(by_hand)) == len(by_hand)
    torch.testing.assert_close(sample(patched), sample(reference), atol=1e-4, rtol=1e-4)


def test_several_identities_add(model: Any, loaded: LoadedAdapter, kind: str) -> None:
    """Two persons on one model: the order of application does not matter, and both are there."""

    def both(first: int, second: int) -> torch.Tensor:
        one = apply_identity(model, loaded, arcface_identity(first), ApplyOptions(strength=0.6))
        return call_unet(
            apply_identity(one, loaded, arcface_identity(second), ApplyOptions(strength=0.6)), kind, (1, 0)
        )

    torch.testing.assert_close(both(0, 1), both(1, 0), atol=1e-5, rtol=1e-5)
    alone = call_unet(apply_identity(model, loaded, arcface_identity(0), ApplyOptions(strength=0.6)), kind, (1, 0))
    assert (both(0, 1) - alone).abs().max() > 1e-4


def test_applying_twice_does_not_stack(model: Any, loaded: LoadedAdapter, kind: str) -> None:
    """The same identity applied again takes the place of the first, with the new strength."""
    once = apply_identity(model, loaded, arcface_identity(), ApplyOptions(strength=0.8))
    twice = apply_identity(
        apply_identity(model, loaded, arcface_identity(), ApplyOptions(strength=0.3)),
        loaded, arcface_identity(), ApplyOptions(strength=0.8),
    )  # fmt: skip
    assert torch.equal(call_unet(once, kind, (1, 0)), call_unet(twice, kind, (1, 0)))


def test_step_range(model: Any, loaded: LoadedAdapter) -> None:
    """Outside its range an identity changes nothing; a range up to the end differs from none at all."""
    options = {"lora_strength": 0.0}
    never = apply_identity(
        model, loaded, arcface_identity(), ApplyOptions(start_percent=1.0, end_percent=1.0, **options)
    )
    late = apply_identity(model, loaded, arcface_identity(), ApplyOptions(start_percent=0.5, **options))
    early = apply_identity(model, loaded, arcface_identity(), ApplyOptions(end_percent=0.5, **options))
    full = apply_identity(model, loaded, arcface_identity(), ApplyOptions(**options))
    plain, results = sample(model, steps=4), [sample(m, steps=4) for m in (late, early, full)]
    assert torch.equal(sample(never, steps=4), plain)
    for index, result in enumerate(results):
        others = [plain, *results[:index]]
        assert all((result - other).abs().max() > 1e-5 for other in others)


def test_unconditional_rows_can_be_left_alone(model: Any, loaded: LoadedAdapter, kind: str) -> None:
    """With negative off the negative row equals the plain model's, and the positive row does not change."""
    off = ApplyOptions(lora_strength=0.0, tokens=TokenOptions(negative=False))
    got = call_unet(apply_identity(model, loaded, arcface_identity(), off), kind, (1, 0))
    with_negative = call_unet(
        apply_identity(model, loaded, arcface_identity(), ApplyOptions(lora_strength=0.0)), kind, (1, 0)
    )
    plain = call_unet(model, kind, (1, 0))
    torch.testing.assert_close(got[0], plain[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got[1], with_negative[1], atol=1e-5, rtol=1e-5)
    assert (with_negative[0] - plain[0]).abs().max() > 1e-4


def test_chains_with_a_patch_that_was_there(model: Any, loaded: LoadedAdapter, kind: str) -> None:
    """Another pack's replacement in a slot is still called, and so is its forward wrapper."""
    calls: list[str] = []

    def other(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        calls.append("slot")
        return q * 0

    def wrapper(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        calls.append("wrapper")
        return apply_model(args["input"], args["timestep"], **args["c"])

    foreign = model.clone()
    foreign.set_model_attn2_replace(other, *unet_layers(model)[0].key)
    foreign.set_model_unet_function_wrapper(wrapper)
    sample(apply_identity(foreign, loaded, arcface_identity(), ApplyOptions()), steps=1)
    assert sorted(set(calls)) == ["slot", "wrapper"]


def test_a_slot_taken_by_another_node_is_an_error(model: Any, loaded: LoadedAdapter) -> None:
    """Fewer layers than the checkpoint has is one sentence, not a weaker picture."""
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions())
    patched.set_model_attn2_replace(lambda q, k, v, extra: q, *unet_layers(model)[3].key)
    with pytest.raises(
        PatchIncomplete, match=f"all {len(unet_layers(model))} attn2 layers.*found {len(unet_layers(model)) - 1}"
    ):
        sample(patched)


def test_wrong_base_model(kind: str, loaded: LoadedAdapter) -> None:
    """Both numbers of layers and both contexts are named, before anything is patched."""
    other = tiny_model("SDXL" if kind == "SD15" else "SD15")
    with pytest.raises(BaseModelMismatch) as error:
        apply_identity(other, loaded, arcface_identity(), ApplyOptions())
    for number in (*ATTENTION_LAYERS.values(), *CONTEXT_WIDTH.values()):
        assert str(number) in str(error.value)


def test_wrong_width(tmp_path: Path, model: Any, kind: str) -> None:
    """A file for a wider model of the same kind is refused with both widths."""
    wide = LoadedAdapter(registry.load(write_faceid(tmp_path / "wide.bin", kind, model_channels=64)))
    with pytest.raises(BaseModelMismatch, match="width"):
        apply_identity(model, wide, arcface_identity(), ApplyOptions())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(kind: str, loaded: LoadedAdapter, dtype: torch.dtype) -> None:
    """Keys and values follow the model's dtype; the result stays near the float32 one."""
    half = tiny_model(kind, dtype=dtype)
    patched = apply_identity(half, loaded, arcface_identity(), ApplyOptions())
    result = sample(patched, steps=1)
    assert torch.isfinite(result).all()
    reference = sample(apply_identity(tiny_model(kind), loaded, arcface_identity(), ApplyOptions()), steps=1)
    assert (result.float() - reference).abs().mean() < 0.1 * reference.abs().mean()


def test_batch_and_long_prompts(model: Any, loaded: LoadedAdapter, kind: str) -> None:
    """Three pictures, and contexts of unequal length, which the host samples in split calls."""
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions())
    three = sample(patched, batch=3)
    assert three.shape[0] == 3
    split = sample(patched, conditioning(kind, tokens=77, seed=1), conditioning(kind, tokens=40, seed=2))
    assert torch.isfinite(split).all()
    assert isinstance(
        patched.model_options["transformer_options"]["patches_replace"]["attn2"][unet_layers(model)[0].key],
        IdentityAttention,
    )
