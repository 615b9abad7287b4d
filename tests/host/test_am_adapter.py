"""AM-Adapter on the real UNet: layers, rows, removal, masks, two models, cost, the exemplar's trajectory, the nodes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from host_inprocess import conditioning, engine, sample, tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, MissingModelFile, PatchIncomplete
from likeness_pack.adapters.families.am_adapter.arch import Matcher
from likeness_pack.adapters.families.am_adapter.controlnext.arch import ControlNeXt
from likeness_pack.adapters.families.am_adapter.ddim import ddim_step, times
from likeness_pack.adapters.families.am_adapter.maps import agreement
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject.am_adapter import MatchOptions, apply_am_adapter, put_matching
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.augmented_attention import Matching
from likeness_pack.inject.call_state import STATE_KEY, CallState
from likeness_pack.inject.exemplar import Control, exemplar_trajectory, official_schedule, read_trajectory
from likeness_pack.inject.exemplar_pass import BANKS_KEY, ExemplarPass, Trajectory
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.managed import ManagedNetwork
from likeness_pack.inject.patching import clone_model
from likeness_pack.nodes.am_adapter import (
    LikenessAMAdapterApply,
    LikenessAMAdapterInvert,
    LikenessAMAdapterSampler,
    LikenessRetrieveExemplar,
)
from module_folders import ModuleFolders
from safetensors.torch import save_file
from tiny_adapters import write_faceid
from torch import Tensor
from unet_calls import load_model

SIZE = 8


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def other() -> Any:
    """An appearance model with weights of its own."""
    return tiny_model("SD15", seed=7)


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """A matcher of the published size, read through the registry."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: value.shape for name, value in Matcher((9, 16, 32, 16, 8)).state_dict().items()}
    tensors = {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}
    path = module_folders.mktemp("am") / "renamed.safetensors"
    save_file(tensors, path)
    return LoadedAdapter(registry.load(path, kind="adapter"))


@pytest.fixture(scope="module")
def control() -> ManagedNetwork:
    """ControlNeXt for a model of 32 channels."""
    torch.manual_seed(5)
    return ManagedNetwork(ControlNeXt(32).eval().requires_grad_(False))


def a_trajectory(size: int = SIZE) -> Trajectory:
    generator = torch.Generator().manual_seed(11)
    return Trajectory(torch.tensor([0.03, 1.0, 15.0]), torch.randn(3, 4, size, size, generator=generator))


def maps() -> tuple[Tensor, Tensor]:
    """Two maps of 64 x 64 with two classes each."""
    exemplar, target = torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)
    exemplar[0, :, 24:], target[0, 40:] = 1, 1
    return exemplar, target


def patched(model: Any, appearance: Any, loaded: LoadedAdapter, size: int = SIZE, **options: Any) -> Any:
    matcher = loaded.adapter
    return apply_am_adapter(model, appearance, matcher, a_trajectory(size), maps(), MatchOptions(**options))


def step(
    model: Any, rows: tuple[int, ...], pictures: int = 1, state: CallState | None = None, size: int = SIZE
) -> Tensor:
    """One forward pass through the model's wrapper; a row depends on its kind and its picture alone."""
    generator = torch.Generator().manual_seed(2)
    latent = torch.randn(2, 4, size, size, generator=generator)[:pictures] * 3
    text = {row: torch.randn(1, 11, 768, generator=generator) for row in (0, 1)}
    options = {**model.model_options["transformer_options"], "cond_or_uncond": list(rows)}
    count = len(rows) * pictures
    options |= {"sigmas": torch.full((count,), 2.0), "original_shape": [count, 4, size, size]}
    if state is not None:
        options[STATE_KEY] = state
    dtype = model.model_dtype()
    args = {
        "input": latent.repeat(len(rows), 1, 1, 1),
        "timestep": torch.full((count,), 2.0),
        "c": {
            "c_crossattn": torch.cat([text[row].expand(pictures, -1, -1) for row in rows]).to(dtype),
            "transformer_options": options,
        },
        "cond_or_uncond": list(rows),
    }
    with torch.inference_mode():
        wrapper = model.model_options.get("model_function_wrapper")
        if wrapper is None:
            return model.model.apply_model(args["input"], args["timestep"], **args["c"])
        return wrapper(model.model.apply_model, args)


@pytest.fixture(scope="module", autouse=True)
def models_in_place(model: Any, other: Any) -> None:
    for one in (model, other):
        load_model(one)


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (1,), (0, 0, 1)])
def test_every_layer_is_called(model: Any, other: Any, loaded: LoadedAdapter, rows: tuple[int, ...]) -> None:
    state = CallState()
    step(patched(model, other, loaded), rows, state=state)
    assert len(state.called["attn1"]) == 16


def test_rows_do_not_depend_on_order_or_on_other_pictures(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    clone = patched(model, other, loaded)
    both = step(clone, (1, 0))
    torch.testing.assert_close(step(clone, (0, 1)).flip(0), both, atol=1e-5, rtol=1e-5)
    pairs = step(clone, (1, 0), pictures=2)
    torch.testing.assert_close(pairs[[0, 2]], both, atol=1e-5, rtol=1e-5)
    assert (pairs[0] - pairs[1]).abs().max() > 1e-3


def test_the_negative_row_sees_itself_alone(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    got, plain = step(patched(model, other, loaded), (1, 0)), step(model, (1, 0))
    torch.testing.assert_close(got[0], plain[0], atol=1e-5, rtol=1e-5)
    assert (got[1] - plain[1]).abs().max() > 1e-2


def test_the_maps_and_the_matcher_matter(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    first, second = maps()
    results = [step(patched(model, other, loaded, mode=mode), (1, 0))[1] for mode in ("soft", "hard")]
    same = MatchOptions(resize="labels")
    results.append(
        step(apply_am_adapter(model, other, loaded.adapter, a_trajectory(), (first, first), same), (1, 0))[1]
    )
    results.append(
        step(apply_am_adapter(model, other, None, a_trajectory(), (first, first), MatchOptions("hard")), (0,))
    )
    for i, one in enumerate(results):
        assert all((one - result).abs().max() > 1e-3 for result in results[:i])


def test_removed_or_at_strength_zero_or_out_of_range_it_leaves_no_trace(
    model: Any, other: Any, loaded: LoadedAdapter
) -> None:
    before = sample(model, size=SIZE)
    assert (sample(patched(model, other, loaded), size=SIZE) - before).abs().max() > 1e-2
    assert torch.equal(sample(model, size=SIZE), before)
    assert torch.equal(sample(patched(model, other, loaded, strength=0.0), size=SIZE), before)
    never = {"start_percent": 1.0, "end_percent": 1.0}
    assert torch.equal(sample(patched(model, other, loaded, **never), size=SIZE), before)


def test_a_mask_confines_it_in_every_layer(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    mask = torch.zeros(16, 16)
    mask[:, :8] = 1
    clone = patched(model, other, loaded, mask=mask)
    patch = clone.model_options["transformer_options"]["patches_replace"]["attn1"][("input", 1, 0)]
    q, k, v = (torch.randn(2, 64, 32) for _ in range(3))
    extra = {"n_heads": 8, "cond_or_uncond": [1, 0], "original_shape": [2, 4, 8, 8], "attn_precision": None}
    plain = patch(q, k, v, extra).view(2, 8, 8, 32)
    out = patch(q, k, v, {**extra, BANKS_KEY: {("input", 1, 0): torch.randn(2, 64, 32)}}).view(2, 8, 8, 32)
    assert torch.equal(out[0], plain[0])
    assert torch.equal(out[1, :, 5:], plain[1, :, 5:])
    assert (out[1, :, :3] - plain[1, :, :3]).abs().max() > 1e-3


def test_applied_twice_the_later_one_counts(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    once = patched(model, other, loaded)
    twice = patched(patched(model, other, loaded, mode="hard"), other, loaded)
    assert torch.equal(step(once, (1, 0)), step(twice, (1, 0)))


def test_a_patch_that_was_there_still_serves(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    """Another pack's attn1 patch acts on negative rows and outside the range."""
    clone = model.clone()
    clone.set_model_attn1_replace(lambda q, k, v, extra, **kwargs: torch.zeros_like(q), "input", 1, 0)
    got, alone = step(patched(clone, other, loaded), (1, 0)), step(clone, (1, 0))
    torch.testing.assert_close(got[0], alone[0], atol=1e-5, rtol=1e-5)
    assert (got[1] - alone[1]).abs().max() > 1e-3


def test_one_model_in_both_places(model: Any, loaded: LoadedAdapter) -> None:
    """The same MODEL twice gives what two copies with equal weights give."""
    copy = tiny_model("SD15")
    load_model(copy)
    shared = patched(model, model, loaded)
    torch.testing.assert_close(step(shared, (1, 0)), step(patched(model, copy, loaded), (1, 0)))
    changed = model.clone()
    changed.add_patches({next(iter(changed.model.state_dict())): (torch.zeros(1),)})
    with pytest.raises(LikenessError, match="a second time"):
        patched(model, changed, loaded)


def test_with_an_identity_on_the_same_model(
    model: Any, other: Any, loaded: LoadedAdapter, module_folders: ModuleFolders
) -> None:
    """FaceID in attn2 and the exemplar in attn1, in either order, on the model alone."""
    faceid = LoadedAdapter(registry.load(write_faceid(module_folders.mktemp("both") / "f.bin", "SD15")))
    plain = ApplyOptions(lora_strength=0.0)
    first = patched(apply_identity(model, faceid, arcface_identity(), plain), other, loaded)
    second = apply_identity(patched(model, other, loaded), faceid, arcface_identity(), plain)
    state = CallState()
    torch.testing.assert_close(step(first, (1, 0), state=state), step(second, (1, 0)))
    assert {slot: len(layers) for slot, layers in state.called.items()} == {"attn1": 16, "attn2": 16}


def test_cost_of_step_and_pass(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    """Counted apart: the exemplar's pass costs one plain pass; neither reads a value back to the host."""
    clone = patched(model, other, loaded)
    base = count_calls(lambda: step(model, (1, 0)))
    step(clone, (1, 0))
    whole = count_calls(lambda: step(clone, (1, 0)))
    passing = count_calls(lambda: _banks(clone))
    assert passing.compute <= 1.15 * base.compute, f"{passing.compute} against {base.compute}"
    assert whole.compute - passing.compute <= 3 * base.compute, f"{whole.compute} less {passing.compute}"
    assert whole.synchronisations == passing.synchronisations == base.synchronisations


def _banks(clone: Any) -> dict[Any, Tensor]:
    passing = clone.model_options["model_function_wrapper"].previous
    assert isinstance(passing, ExemplarPass)
    options = {"cond_or_uncond": [1, 0]}
    conditions = {"c_crossattn": torch.zeros(2, 11, 768), "transformer_options": options}
    args = {"input": torch.zeros(2, 4, SIZE, SIZE), "timestep": torch.full((2,), 2.0), "c": conditions}
    with torch.inference_mode():
        return passing.banks(args)


def test_what_does_not_fit_is_refused(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(LikenessError, match="64 x 64.*128 x 128"):
        step(patched(model, other, loaded), (1, 0), size=16)
    with pytest.raises(BaseModelMismatch, match="8 attention heads"):
        patched(tiny_model("SDXL"), other, loaded)
    with pytest.raises(BaseModelMismatch, match="other widths"):
        patched(model, tiny_model("SD15", 64), loaded)


def test_a_hidden_layer_of_the_exemplar_is_an_error(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    clone = patched(model, other, loaded)
    options = clone.model_options["model_function_wrapper"].previous.model.patcher.model_options["transformer_options"]
    options["patches"]["attn1_patch"].clear()
    with pytest.raises(PatchIncomplete, match="0 that were seen"):
        step(clone, (1, 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(loaded: LoadedAdapter, dtype: torch.dtype) -> None:
    half = tiny_model("SD15", dtype=dtype)
    assert torch.isfinite(sample(patched(half, half, loaded), steps=1, size=SIZE)).all()


def test_controlnext_in_both_models(model: Any, other: Any, loaded: LoadedAdapter, control: ManagedNetwork) -> None:
    pictures = [one[None] for one in maps()]
    controls = (Control(control, pictures[0]), Control(control, pictures[1]))
    clone = apply_am_adapter(model, other, loaded.adapter, a_trajectory(), maps(), MatchOptions(), controls)
    state = CallState()
    got = step(clone, (1, 0), state=state)
    assert {slot: len(layers) for slot, layers in state.called.items()} == {"attn1": 16, "controlnext": 1}
    without = step(patched(model, other, loaded), (1, 0))
    assert all((got[row] - without[row]).abs().max() > 1e-3 for row in (0, 1))
    swapped = (controls[1], controls[1])
    third = step(
        apply_am_adapter(model, other, loaded.adapter, a_trajectory(), maps(), MatchOptions(), swapped), (1, 0)
    )
    torch.testing.assert_close(third[0], got[0], atol=1e-5, rtol=1e-5)
    assert (third[1] - got[1]).abs().max() > 1e-4
    sample(clone, size=SIZE, steps=1)
    with pytest.raises(BaseModelMismatch, match="32 channels"):
        apply_am_adapter(
            *[tiny_model("SD15", 64)] * 2, loaded.adapter, a_trajectory(), maps(), MatchOptions(), controls
        )


def by_hand(model: Any, latent: Tensor, steps: int, cfg: float) -> tuple[list[Tensor], Tensor]:
    """The authors' loop on the network itself: up with the negative text, down with guidance; and what is left."""
    alphas = 1 / (model.get_model_object("model_sampling").sigmas.double() ** 2 + 1)
    texts = [conditioning("SD15", seed=seed)[0][0] for seed in (1, 2)]

    def noise(x: Tensor, time: int, text: Tensor) -> Tensor:
        return model.model.diffusion_model(x, timesteps=torch.tensor([float(time)]), context=text)

    def back(time: int) -> float:
        return float(alphas[max(time - 1000 // steps, 0)])

    x = latent * 0.18215
    for time in reversed(times(steps)):
        x = ddim_step(x, noise(x, time, texts[1]), back(time), float(alphas[time]))
    visited = []
    for time in times(steps):
        visited.append(x)
        negative = noise(x, time, texts[1])
        guided = negative + cfg * (noise(x, time, texts[0]) - negative)
        x = ddim_step(x, guided, float(alphas[time]), back(time))
    return visited, x


def test_the_trajectory_is_the_authors_loop(model: Any) -> None:
    """Inversion and steps down through the host's sampling equal the loop by hand; the sampler ends where it ends."""
    latent = torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        expected, end = by_hand(model, latent, 5, 3.0)
        positive, negative = conditioning("SD15", seed=1), conditioning("SD15", seed=2)
        done: list[tuple[int, int]] = []
        made = exemplar_trajectory(
            model, latent, positive, negative, steps=5, cfg=3.0, progress=lambda *at: done.append(at)
        )
        # Rounding of one part in ten millions at the start grows to 1e-3 in this network of random weights.
        torch.testing.assert_close(made["samples"][:1] * 0.18215, expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(made["samples"] * 0.18215, torch.cat(expected), atol=5e-3, rtol=0)
        assert done == [(number, 10) for number in range(1, 11)]
        trajectory = read_trajectory(model, made)
        for sigma, one in zip(made["likeness_sigmas"], made["samples"], strict=True):
            torch.testing.assert_close(trajectory.at(torch.tensor([sigma]))[0], one * 0.18215, atol=1e-6, rtol=1e-6)
        sampler, sigmas = official_schedule(model, 5)
        run = importlib.import_module("comfy.sample").sample_custom
        zeros = torch.zeros_like(latent)
        got = run(model, expected[0], 3.0, sampler, sigmas, positive, negative, zeros, disable_pbar=True)
        torch.testing.assert_close(got * 0.18215, end, atol=5e-3, rtol=0)
        with pytest.raises(LikenessError, match="noise level"):
            run(model, expected[0], 3.0, sampler, sigmas * 0.9, positive, negative, zeros, disable_pbar=True)


def test_between_known_levels_latents_are_linear_and_beyond_them_fixed() -> None:
    trajectory = a_trajectory()
    latents = trajectory.latents
    torch.testing.assert_close(trajectory.at(torch.tensor([8.0])), (latents[1:2] + latents[2:3]) / 2)
    assert torch.equal(trajectory.at(torch.tensor([99.0])), latents[2:3])
    assert torch.equal(trajectory.at(torch.tensor([0.0])), latents[:1])


def test_nodes_from_latent_to_picture(model: Any, loaded: LoadedAdapter) -> None:
    """Invert, apply, official sampler: the graph that the help pages describe."""
    positive, negative = conditioning("SD15", seed=1), conditioning("SD15", seed=2)
    latent = {"samples": torch.randn(1, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(4))}
    images = [one.movedim(0, -1)[None] for one in maps()]
    with torch.inference_mode():
        (exemplar,) = LikenessAMAdapterInvert().invert(model, latent, positive, negative, 3, 7.5)
        apply = LikenessAMAdapterApply().apply
        fixed = (model, model, exemplar, *images)
        (clone,) = apply(*fixed, "soft", 1.0, 0.0, 1.0, adapter=loaded)
        sampler, sigmas = LikenessAMAdapterSampler().make(clone, 3)
        run = importlib.import_module("comfy.sample").sample_custom
        noise, zeros = torch.randn(2, 4, SIZE, SIZE), torch.zeros(2, 4, SIZE, SIZE)
        out = run(clone, noise, 7.5, sampler, sigmas, positive, negative, zeros, disable_pbar=True)
        assert out.shape == (2, 4, SIZE, SIZE) and torch.isfinite(out).all()
        with pytest.raises(MissingModelFile, match="published no weights"):
            apply(*fixed, "soft", 1.0, 0.0, 1.0)
        apply(*fixed, "hard", 1.0, 0.0, 1.0)
        with pytest.raises(LikenessError, match="its own input"):
            apply(*fixed, "soft", 1.0, 0.0, 1.0, adapter=loaded, controlnext=loaded)
        with pytest.raises(LikenessError, match="Invert Exemplar"):
            apply(model, model, latent, *images, "soft", 1.0, 0.0, 1.0, adapter=loaded)
        with pytest.raises(LikenessError, match="one square picture"):
            LikenessAMAdapterInvert().invert(model, {"samples": torch.zeros(1, 4, 8, 9)}, positive, negative, 3, 7.5)
        with pytest.raises(LikenessError, match="connect exemplar_map"):
            LikenessAMAdapterInvert().invert(model, latent, positive, negative, 3, 7.5, controlnext=loaded)


class _Vision:
    """A CLIP_VISION whose embedding is the mean colour."""

    def encode_image(self, images: Tensor) -> dict[str, Tensor]:
        return {"image_embeds": images.mean((1, 2))}


def test_retrieval_by_maps_and_by_pictures() -> None:
    engine()
    exemplar, target = (one.movedim(0, -1)[None] for one in maps())
    pictures = torch.stack([torch.zeros(8, 8, 3) + torch.tensor(colour) for colour in ([0, 0, 1.0], [1.0, 0, 0])])
    retrieve = LikenessRetrieveExemplar().retrieve
    picture, chosen, index, report = retrieve(target, pictures, torch.cat((exemplar, target)))["result"]
    assert index == 1 and torch.equal(chosen, target) and torch.equal(picture, pictures[1:])
    assert "> 1: 1.000" in report
    wanted = torch.zeros(1, 8, 8, 3) + torch.tensor([0, 0.1, 0.9])
    by_look = retrieve(target, pictures, torch.cat((exemplar, target)), _Vision(), wanted)["result"]
    assert by_look[2] == 0 and "CLIP" in by_look[3]
    with pytest.raises(LikenessError, match="same order"):
        retrieve(target, pictures, target)
    with pytest.raises(LikenessError, match="both clip_vision and picture"):
        retrieve(target, pictures, torch.cat((exemplar, target)), picture=wanted)


def test_the_matcher_on_apply_identity_is_refused_by_name(model: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(EncoderMismatch, match="Apply AM-Adapter"):
        apply_identity(model, loaded, arcface_identity(), ApplyOptions())


def test_resized_logits_on_a_model(model: Any, other: Any, loaded: LoadedAdapter) -> None:
    """On a grid of 4 the finest level of this model is resized as 64 x 64 is officially; all rows stay finite."""
    clone = clone_model(patched(model, other, loaded))
    same = agreement(*maps(), side=4)[None]
    put_matching(clone, unet_layers(model), Matching(loaded.adapter.network, same, grid=4))
    got, usual = step(clone, (1, 0)), step(patched(model, other, loaded), (1, 0))
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got[0], usual[0], atol=1e-5, rtol=1e-5)
    assert (got[1] - usual[1]).abs().max() > 1e-4
