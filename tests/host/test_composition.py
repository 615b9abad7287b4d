"""Two families on one model, with everything else a graph may hold: LoRA, ControlNet, masked conditionings, batches,
one branch alone, half precision. What commutes by its mathematics gives the same numbers in any order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from host_encoders import control_net
from host_inprocess import ATTENTION_LAYERS, Conditioning, Kind, conditioning, engine, sample, tiny_model
from likeness_pack.adapters.families.pulid_sdxl.projection import Projection
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from safetensors.torch import save_file
from tiny_systems import BY_NAME, patches_of
from torch import Tensor
from unet_calls import call_unet

# All but the last three act beside the text attention alone.
PAIRS = (
    ("faceid_sdxl", "instantid"),
    ("faceid_sdxl", "pulid_v1"),
    ("faceid_sdxl", "ip_adapter_plus_sdxl"),
    ("instantid", "pulid_v1_1"),
    ("faceid_sd15", "ip_adapter_full_face_sd15"),
    ("faceid_plus_sd15", "w_plus"),
    ("id_animator", "ip_adapter_plus_sd15"),
    ("faceid_sd15", "fact"),
    ("w_plus", "fact"),
    ("ip_adapter_plus_sd15", "fact"),
)
BESIDE = PAIRS[:-3]
SAMPLED = (PAIRS[0], PAIRS[1], PAIRS[2], PAIRS[5], PAIRS[7])
MIDDLE_LAYERS = 16
# Two steps from a sigma of 14.6 enlarge the rounding of another batch size; the identities' part is above 0.1.
ROUNDING = {"atol": 5e-3, "rtol": 1e-3}
Load = Callable[[str], LoadedAdapter]


def name_of(pair: Sequence[str]) -> str:
    """The test's id."""
    return "+".join(pair)


pairs = pytest.mark.parametrize("pair", PAIRS, ids=name_of)
sampled = pytest.mark.parametrize("pair", SAMPLED, ids=name_of)


@pytest.fixture(scope="module")
def models() -> dict[Kind, Any]:
    """Both base models."""
    return {"SD15": tiny_model("SD15"), "SDXL": tiny_model("SDXL")}


@pytest.fixture(scope="module")
def load(module_folders: ModuleFolders) -> Load:
    """Each adapter once."""
    folder, kept = module_folders.mktemp("systems"), {}

    def loaded(name: str) -> LoadedAdapter:
        if name not in kept:
            kept[name] = BY_NAME[name].load(folder)
        return kept[name]

    return loaded


def node(name: str) -> Any:
    """An instance of one of the host's own nodes."""
    engine()
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS[name]()


def applied(model: Any, load: Load, names: Sequence[str], seed: int = 0, **options: Any) -> Any:
    """Each system with a person of its own; PuLID with its own projection."""
    for number, name in enumerate(names):
        chosen = {"strength": 0.7, **options}
        if name.startswith("pulid"):
            chosen["projection"] = Projection.FIDELITY
        model = apply_identity(model, load(name), BY_NAME[name].identity(seed + number), ApplyOptions(**chosen))
    return model


def kind_of(pair: Sequence[str]) -> Kind:
    """The base model of both."""
    return BY_NAME[pair[0]].kind


@pairs
def test_every_layer_of_both_is_called(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """Sixteen or seventy cross attentions, each with one term of each system; sixteen gates where FACT is one."""
    kind = kind_of(pair)
    patched, state = applied(models[kind], load, pair), CallState()
    call_unet(patched, kind, (1, 0), state)
    slots = [BY_NAME[name].slot for name in pair]
    expected = {"attn2": ATTENTION_LAYERS[kind]} | ({"middle": MIDDLE_LAYERS} if "middle" in slots else {})
    assert {slot: len(layers) for slot, layers in state.called.items()} == expected
    table = patches_of(patched, "attn2")
    assert {layer.key for layer in unet_layers(patched)} == set(table)
    assert {len(patch.terms) for patch in table.values()} == {slots.count("attn2")}


@pytest.mark.parametrize("pair", BESIDE, ids=name_of)
def test_a_layer_adds_what_each_adds_alone(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """Terms beside the text attention are sums: none enters another."""
    kind = kind_of(pair)
    model = models[kind]
    both, first, second = (applied(model, load, names) for names in (pair, pair[:1], pair[1:]))
    # The second alone has to be the second person as well.
    second = applied(model, load, pair[1:], seed=1)
    nobody = applied(model, load, pair[:1], strength=0.0)
    for layer in unet_layers(model):
        q, text = torch.randn(2, 9, layer.width), torch.randn(2, 5, layer.width)
        extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0]}
        got, one, two, none = (
            patches_of(m, "attn2")[layer.key](q, text, text, extra) for m in (both, first, second, nobody)
        )
        torch.testing.assert_close(got - none, (one - none) + (two - none), atol=5e-5, rtol=1e-4)
        assert (one - none).abs().max() > 1e-4 and (two - none).abs().max() > 1e-4


@pairs
@pytest.mark.parametrize("rows", [(1, 0), (0,), (0, 1, 0)], ids=str)
def test_the_order_of_two_families_is_of_no_account(
    models: dict[Kind, Any], load: Load, pair: tuple[str, str], rows: tuple[int, ...]
) -> None:
    """Sums commute; FACT's gates stand at another place than what is added to the text attention."""
    kind = kind_of(pair)
    forth = call_unet(applied(models[kind], load, pair), kind, rows)
    back = models[kind]
    for number in (1, 0):
        back = applied(back, load, pair[number : number + 1], seed=number)
    torch.testing.assert_close(call_unet(back, kind, rows), forth, atol=2e-5, rtol=2e-5)


@sampled
def test_without_the_nodes_nothing_is_left(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """Both act; with strength 0 each, and on the model that came in, the samples are bit-equal to the plain ones."""
    model = models[kind_of(pair)]
    before = sample(model, steps=1)
    results = [sample(applied(model, load, names), steps=1) for names in (pair, pair[:1])]
    results.append(sample(applied(model, load, pair[1:], seed=1), steps=1))
    for index, result in enumerate(results):
        assert all((result - other).abs().max() > 1e-4 for other in (before, *results[:index]))
    silent = applied(model, load, pair, strength=0.0, lora_strength=0.0)
    assert torch.equal(sample(silent, steps=1), before)
    assert torch.equal(sample(model, steps=1), before)


def write_lora(model: Any, kind: str, rank: int = 2) -> str:
    """A LoRA file on every text key, value and query of the base model, in the host's folder; its name."""
    generator, tensors = torch.Generator().manual_seed(11), {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight", "attn2.to_v.weight")):
            key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            tensors[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], rank, generator=generator) * 0.3
            tensors[f"{key}.lora_down.weight"] = torch.randn(rank, weight.shape[1], generator=generator) * 0.05
    folder = engine().models / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"composition_{kind}.safetensors")
    return f"composition_{kind}.safetensors"


@sampled
def test_a_lora_before_or_after(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """The host's own LoRA node on either side of the identities, FaceID's own LoRA among them: the same picture."""
    kind = kind_of(pair)
    model, file = models[kind], write_lora(models[kind], kind)

    def with_lora(of: Any) -> Any:
        return node("LoraLoaderModelOnly").load_lora_model_only(of, file, 0.8)[0]

    after = call_unet(with_lora(applied(model, load, pair)), kind, (1, 0))
    before = call_unet(applied(with_lora(model), load, pair), kind, (1, 0))
    torch.testing.assert_close(after, before, atol=2e-5, rtol=2e-5)
    assert (after - call_unet(applied(model, load, pair), kind, (1, 0))).abs().max() > 1e-4
    assert (after - call_unet(with_lora(model), kind, (1, 0))).abs().max() > 1e-4
    plain = call_unet(model, kind, (1, 0))
    assert torch.equal(call_unet(tiny_model(kind), kind, (1, 0)), plain)


@sampled
def test_a_controlnet_and_a_lora_beside_them(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """The host's ControlNet node steers the same sampling; without identities it gives what it always gave."""
    kind = kind_of(pair)
    model, hint = models[kind], torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    texts = conditioning(kind, seed=1), conditioning(kind, seed=2)
    held = node("ControlNetApplyAdvanced").apply_controlnet(*texts, control_net(kind), hint, 0.9, 0.0, 1.0)
    patched = applied(
        node("LoraLoaderModelOnly").load_lora_model_only(model, write_lora(model, kind), 0.8)[0], load, pair
    )
    results = [sample(m, *c, steps=1) for m in (model, patched) for c in (texts, held)]
    for index, result in enumerate(results):
        assert torch.isfinite(result).all()
        assert all((result - other).abs().max() > 1e-4 for other in results[:index])
    silent = applied(model, load, pair, strength=0.0, lora_strength=0.0)
    assert torch.equal(sample(silent, *held, steps=1), results[1])


def halves(side: int = 64) -> tuple[Tensor, Tensor]:
    """The left and the right half of a picture."""
    left = torch.zeros(1, side, side)
    left[..., : side // 2] = 1
    return left, 1 - left


@sampled
def test_masked_conditionings(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """One text in both halves is that text everywhere: several positive rows in one call are each patched as one is."""
    kind = kind_of(pair)
    patched = applied(models[kind], load, pair)
    text, other = conditioning(kind, seed=1), conditioning(kind, seed=6)

    def in_halves(first: Conditioning, second: Conditioning, area: str = "default") -> Conditioning:
        set_mask = node("ConditioningSetMask").append
        parts = zip((first, second), halves(), strict=True)
        return [entry for one, mask in parts for entry in set_mask(one, mask, area, 1.0)[0]]

    whole = sample(patched, text, steps=1)
    torch.testing.assert_close(sample(patched, in_halves(text, text), steps=1), whole, atol=2e-5, rtol=2e-5)
    mixed = sample(patched, in_halves(text, other), steps=1)
    assert (mixed - whole).abs().max() > 1e-4
    bounded = sample(patched, in_halves(text, other, "mask bounds"), steps=1)
    assert torch.isfinite(bounded).all() and (bounded - mixed).abs().max() > 1e-4
    silent = applied(models[kind], load, pair, strength=0.0, lora_strength=0.0)
    plain = sample(models[kind], in_halves(text, other, "mask bounds"), steps=1)
    assert torch.equal(sample(silent, in_halves(text, other, "mask bounds"), steps=1), plain)
    assert (bounded - plain).abs().max() > 1e-4


@sampled
def test_a_text_in_an_area(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """The host cuts the latent for an area, so that calls of two sizes follow each other in a step."""
    kind = kind_of(pair)
    text, other = conditioning(kind, seed=1), conditioning(kind, seed=6)
    beside = [*text, *node("ConditioningSetArea").append(other, 64, 64, 0, 0, 1.0)[0]]
    patched = applied(models[kind], load, pair, mask=torch.rand(16, 16))
    got, plain = (sample(m, beside, steps=1, size=16) for m in (patched, models[kind]))
    assert torch.isfinite(got).all()
    assert (got - plain).abs().max() > 1e-4
    assert (got - sample(patched, text, steps=1, size=16)).abs().max() > 1e-4


@sampled
def test_a_batch_of_three(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """The first picture of three is the picture that is sampled alone; all three are different."""
    patched = applied(models[kind_of(pair)], load, pair)
    three = sample(patched, batch=3)
    torch.testing.assert_close(three[:1], sample(patched), **ROUNDING)
    assert min((three[i] - three[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-2
    assert (three - sample(models[kind_of(pair)], batch=3)).abs().amax((1, 2, 3)).min() > 0.1


@sampled
def test_the_positive_branch_alone(models: dict[Kind, Any], load: Load, pair: tuple[str, str]) -> None:
    """With cfg 1 the host leaves the negative branch out; computing it all the same changes nothing."""
    patched = applied(models[kind_of(pair)], load, pair)
    alone = sample(patched, cfg=1.0)
    both = patched.clone()
    both.model_options = {**both.model_options, "disable_cfg1_optimization": True}
    torch.testing.assert_close(sample(both, cfg=1.0), alone, **ROUNDING)
    assert (alone - sample(models[kind_of(pair)], cfg=1.0)).abs().max() > 0.1


@sampled
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision(models: dict[Kind, Any], load: Load, pair: tuple[str, str], dtype: torch.dtype) -> None:
    """A base model in half precision shows the people it shows in float32: its own rounding is far below their part."""
    kind = kind_of(pair)
    full, plain = (sample(m, steps=1) for m in (applied(models[kind], load, pair), models[kind]))
    half_model = tiny_model(kind, dtype=dtype)
    half = sample(applied(half_model, load, pair), steps=1)
    assert torch.isfinite(half).all()
    assert (half - full).norm() < 0.25 * (full - plain).norm()
