"""The region node for every family: each person with an own mask and strength, nothing outside, cost of a step."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from host_inprocess import ATTENTION_LAYERS, Kind, engine, sample, tiny_model
from likeness_pack.adapters.identity_ops import faces_alone
from likeness_pack.evaluation.leakage import latent_leakage
from likeness_pack.evaluation.operations import Calls, count_calls
from likeness_pack.faces.errors import BadMask
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.layer_map import UNetLayer, unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.nodes.adapter import LikenessApplyIdentity, LikenessApplyRegions
from module_folders import ModuleFolders
from tiny_pulid import flux_shapes, pulid_identity, sample_flux, tiny_flux, write
from tiny_systems import BY_NAME, SYSTEMS, System, patches_of
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from unet_calls import call_unet, patched_calls

SIDE = 16  # of the latent: the coarsest level of SD1.5 then has four cells
STRENGTHS = (0.9, 0.6, -0.4)
Loader = Callable[[System], LoadedAdapter]


@pytest.fixture(scope="module")
def models() -> dict[Kind, Any]:
    """Both base models."""
    return {"SD15": tiny_model("SD15"), "SDXL": tiny_model("SDXL")}


@pytest.fixture(scope="module")
def load(module_folders: ModuleFolders) -> Loader:
    """Each adapter once."""
    folder, kept = module_folders.mktemp("systems"), {}

    def loaded(system: System) -> LoadedAdapter:
        if system.name not in kept:
            kept[system.name] = system.load(folder)
        return kept[system.name]

    return loaded


def overlapping_masks() -> tuple[Tensor, Tensor]:
    """Two soft ramps over the left half of the picture that overlap; the right half belongs to nobody."""
    columns = torch.linspace(0, 1, 64).expand(64, 64)
    return tuple((1 - (columns - centre).abs() * 6).clamp(0, 1) for centre in (0.12, 0.3))  # type: ignore[return-value]


def regions(model: Any, loaded: LoadedAdapter, start: float = 0.0, end: float = 1.0, **people: Any) -> Any:
    """What the node gives."""
    return LikenessApplyRegions().apply(model, loaded, start, end, **people)[0]


def several(system: System, count: int, masks: Any = None) -> dict[str, Any]:
    """Inputs of the node for some people."""
    people: dict[str, Any] = {f"identity_{i + 1}": system.identity(i) for i in range(count)}
    people |= {f"strength_{i + 1}": STRENGTHS[i % 3] for i in range(count)}
    return people | {f"mask_{i + 1}": mask for i, mask in enumerate(masks or ())}


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_it_is_the_chain_of_single_applies(models: dict[Kind, Any], load: Loader, system: System) -> None:
    """Persons 1 and 3 of the node, with soft overlapping masks, are bit-equal to two Apply Identity nodes in a row."""
    model, loaded, masks = models[system.kind], load(system), overlapping_masks()
    people = {
        "identity_1": system.identity(0), "mask_1": masks[0], "strength_1": 0.9,
        "identity_3": system.identity(1), "mask_3": masks[1], "strength_3": 0.6,
    }  # fmt: skip
    at_once, chain = regions(model, loaded, 0.0, 1.0, **people), model
    for number, strength in ((0, 0.9), (1, 0.6)):
        node = LikenessApplyIdentity()
        chain = node.apply(chain, loaded, system.identity(number), strength, 0.0, 1.0, mask=masks[number])[0]
    assert patched_calls(at_once, system.kind, (1, 0)) == ATTENTION_LAYERS[system.kind]
    got = call_unet(at_once, system.kind, (1, 0), size=SIDE)
    assert torch.equal(got, call_unet(chain, system.kind, (1, 0), size=SIDE))
    assert (got - call_unet(model, system.kind, (1, 0), size=SIDE)).abs().max() > 1e-4


def grid_of(layer: UNetLayer, kind: Kind) -> int:
    """Side of a layer's token grid."""
    first = {"SD15": 32, "SDXL": 64}[kind]
    halvings = {"SD15": 0, "SDXL": 1}[kind] + {1: 0, 2: 1, 4: 2}[layer.width // first]
    return SIDE >> (halvings + (kind == "SD15" and layer.block[0] == "middle"))


def layer_results(patched: Any, plain: Any, system: System, layer: UNetLayer, rows: int) -> tuple[Tensor, Tensor, int]:
    """A layer's output with and without the identities, as (rows, side, side, width)."""
    side = grid_of(layer, system.kind)
    generator = torch.Generator().manual_seed(layer.width)
    q, text = (torch.randn(rows, length, layer.width, generator=generator) for length in (side * side, 5))
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0], "original_shape": [rows, 4, SIDE, SIDE]}
    extra |= {"block": layer.key[:2], "block_index": layer.key[2]}
    outputs = []
    for model in (patched, plain):
        patches = patches_of(model, system.slot)
        if system.slot == "middle":
            outputs.append(patches[0](q, extra))
        else:
            outputs.append(patches[layer.key](q, text, text, extra))
    with_them, without = (out.detach().unflatten(1, (side, side)) for out in outputs)
    return with_them, without, side


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_two_soft_masks_that_overlap_add_nothing_outside(models: dict[Kind, Any], load: Loader, system: System) -> None:
    """In every layer: bit-equal where both masks are zero, and changed where one of them is not."""
    model, loaded, masks = models[system.kind], load(system), overlapping_masks()
    patched = regions(model, loaded, lora_strength=0.0, **several(system, 2, masks))
    nobody = apply_identity(model, loaded, system.identity(0), ApplyOptions(strength=0.0, lora_strength=0.0))
    for layer in unet_layers(model):
        got, plain, side = layer_results(patched, nobody, system, layer, 2)
        small = F.interpolate(torch.stack(masks)[:, None], (side, side), mode="bilinear", align_corners=False)
        outside = (small == 0).all(0)[0]
        assert outside.any() and (~outside).any()
        assert torch.equal(got[:, outside], plain[:, outside]), layer.path
        assert (got - plain)[:, ~outside].abs().amax(-1).max() > 1e-5, layer.path


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_masks_per_frame(models: dict[Kind, Any], load: Loader, system: System) -> None:
    """Three frames: person 1 in the first, person 2 in the last, nobody in the middle one, whose layers are
    bit-equal.
    """
    model, loaded = models[system.kind], load(system)
    frames = torch.zeros(2, 3, SIDE, SIDE)
    frames[0, 0, :, : SIDE // 2], frames[1, 2] = 1, 1
    patched = regions(model, loaded, lora_strength=0.0, **several(system, 2, list(frames)))
    nobody = apply_identity(model, loaded, system.identity(0), ApplyOptions(strength=0.0, lora_strength=0.0))
    layers = unet_layers(model)
    for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
        got, plain, side = layer_results(patched, nobody, system, layer, 6)
        added = (got - plain).unflatten(0, (2, 3))
        assert torch.equal(added[:, 1], torch.zeros_like(added[:, 1]))
        assert torch.equal(added[:, 0, :, side // 2 :], torch.zeros_like(added[:, 0, :, side // 2 :]))
        assert added[:, 0].abs().max() > 1e-5 and added[:, 2].abs().max() > 1e-5
    before, after = (sample(m, batch=3, steps=1, size=SIDE) for m in (model, patched))
    torch.testing.assert_close(after[1], before[1], atol=1e-6, rtol=1e-6)
    assert (after - before)[[0, 2]].abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", ["faceid_sdxl", "fact", "w_plus"])
def test_masks_that_fit_no_batch_are_refused(models: dict[Kind, Any], load: Loader, name: str) -> None:
    """Two masks for three pictures: one sentence, when sampling knows the batch."""
    system = BY_NAME[name]
    people = several(system, 1, [torch.ones(2, 8, 8)])
    patched = regions(models[system.kind], load(system), lora_strength=0.0, **people)
    with pytest.raises(BadMask, match="for each of the 3 pictures.*found 2 masks"):
        sample(patched, batch=3, steps=1)


def test_a_region_without_a_person_and_a_region_of_nothing_are_told(models: dict[Kind, Any], load: Loader) -> None:
    system = BY_NAME["faceid_sd15"]
    people = several(system, 1, [torch.ones(8, 8)])
    with pytest.raises(BadMask, match="mask_3: expected a person for this region at identity_3"):
        regions(models["SD15"], load(system), **people, mask_3=torch.ones(1, 8, 8))
    with pytest.raises(BadMask, match="white somewhere"):
        regions(models["SD15"], load(system), **several(system, 1, [torch.zeros(1, 64, 64)]))


@pytest.mark.parametrize(
    "name", ["faceid_sd15", "faceid_plus_sd15", "ip_adapter_plus_sd15", "instantid", "pulid_v1", "fact"]
)
def test_pictures_without_a_face_are_nobody(models: dict[Kind, Any], load: Loader, name: str) -> None:
    """Under 'keep' they are rows of zeros, which the adapters would show as a person of their own."""
    system = BY_NAME[name]
    model, loaded, one = models[system.kind], load(system), system.identity(1)
    with_nobody = {
        name: tensor if name == "image_tokens_zero" else torch.cat([tensor, torch.zeros_like(tensor)])
        for name, tensor in one.features.items()
    }
    two = replace(one, features=with_nobody, photos=("0" * 64, "1" * 64))
    assert len(two) == 2 and faces_alone(two).photos == ("0" * 64,) and faces_alone(one) is one
    # Leaving rows out makes another identity at every call; what is projected is kept with the one that came in.
    apply_identity(model, loaded, two, ApplyOptions())
    gc.collect()
    ran: list[int] = []
    handles = [part.register_forward_hook(lambda *_: ran.append(1)) for part in loaded.managed.network.modules()]
    apply_identity(model, loaded, two, ApplyOptions(strength=0.5))
    for handle in handles:
        handle.remove()
    assert not ran
    alone, both = (sample(apply_identity(model, loaded, who, ApplyOptions()), steps=1) for who in (one, two))
    assert torch.equal(alone, both)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_the_order_of_people(models: dict[Kind, Any], load: Loader, system: System) -> None:
    """Terms beside the text attention add up in any order; gated layers see what the one before left (documented)."""
    model, loaded, masks = models[system.kind], load(system), overlapping_masks()
    results = []
    for order in ((0, 1), (1, 0)):
        patched = model
        for number in order:
            options = ApplyOptions(strength=STRENGTHS[number], mask=masks[number])
            patched = apply_identity(patched, loaded, system.identity(number), options)
        results.append(call_unet(patched, system.kind, (1, 0), size=SIDE))
    if system.slot == "middle":
        assert (results[0] - results[1]).abs().max() > 1e-5
    else:
        torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)


def step(model: Any, kind: Kind) -> Calls:
    """What a step dispatches after the first, which fills caches."""
    state = CallState()
    call_unet(model, kind, (1, 0), state)
    return count_calls(lambda: call_unet(model, kind, (1, 0), state, loaded=True))


LINEAR = ("faceid_sdxl", "ip_adapter_plus_sdxl", "instantid", "pulid_v1", "faceid_sd15", "ip_adapter_plus_sd15")


@pytest.mark.parametrize("masked", [False, True], ids=["everywhere", "masked"])
@pytest.mark.parametrize("name", LINEAR)
def test_people_cost_little(models: dict[Kind, Any], load: Loader, name: str, masked: bool) -> None:
    """Operations of a step with 1, 2 and 4 people at most 1.10, 1.15, 1.25 times the plain step's; nothing read
    back.
    """
    system = BY_NAME[name]
    model, loaded = models[system.kind], load(system)
    base = step(model, system.kind)
    for people, limit in ((1, 1.10), (2, 1.15), (4, 1.25)):
        masks = [torch.rand(16, 16) for _ in range(people)] if masked else None
        counted = step(regions(model, loaded, lora_strength=0.0, **several(system, people, masks)), system.kind)
        assert counted.compute <= limit * base.compute, f"{people}: {counted.compute} against {base.compute}"
        assert counted.synchronisations == base.synchronisations
        assert counted.copies == base.copies


def test_flux(tmp_path: Any) -> None:
    """PuLID between the blocks of Flux: two people of the node are the chain of both, in either order."""
    if not engine().has_wrappers:
        pytest.skip("needs a newer host: this ComfyUI has no Flux")
    system = System("pulid_flux", "SDXL", lambda path: write(path, flux_shapes()), pulid_identity)
    model, loaded, masks = tiny_flux(), system.load(tmp_path), overlapping_masks()
    at_once = sample_flux(regions(model, loaded, **several(system, 2, masks)))
    for order in ((0, 1), (1, 0)):
        chain = model
        for number in order:
            options = ApplyOptions(strength=STRENGTHS[number], mask=masks[number])
            chain = apply_identity(chain, loaded, system.identity(number), options)
        torch.testing.assert_close(sample_flux(chain), at_once, atol=1e-5, rtol=1e-5)
    assert (at_once - sample_flux(model)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["faceid_sd15", "fact", "w_plus"])
def test_leakage_is_told(models: dict[Kind, Any], load: Loader, name: str) -> None:
    """What reaches the rest of the final latent through later layers is measured; strength 0 leaks nothing."""
    system, masks = BY_NAME[name], overlapping_masks()
    model, loaded = models[system.kind], load(system)
    plain = sample(model, size=SIDE)
    told = latent_leakage(
        plain, sample(regions(model, loaded, lora_strength=0.0, **several(system, 2, masks)), size=SIDE), masks
    )
    assert told.inside > 0 and 0 < told.ratio < float("inf") and 0.3 < told.area < 0.7
    silent = {**several(system, 2, masks), "strength_1": 0.0, "strength_2": 0.0}
    none = latent_leakage(plain, sample(regions(model, loaded, lora_strength=0.0, **silent), size=SIDE), masks)
    assert (none.inside, none.outside) == (0.0, 0.0)
