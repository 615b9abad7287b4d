"""RestorerID on the real UNet: every block, rows, batches, strengths, steps, removal, costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import conditioning, sample, tiny_model
from identities import arcface_identity
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, PatchIncomplete
from likeness_pack.adapters.families.restorerid.layout import RESIDUAL_BLOCKS
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.residual_blocks import RestoredBlock
from likeness_pack.inject.restorer_sampling import official_sigmas, with_official_timesteps
from likeness_pack.inject.restorerid import ATTENTION_SLOT, SLOT, RestorationOptions, apply_restoration
from module_folders import ModuleFolders
from restorer_cases import holder_of, lq_latents, reference_identity, tiny_restorer
from torch import Tensor
from unet_calls import call_unet, load_model, unet_inputs

OFF = RestorationOptions((0.0,), 0.0, 0.0, 0.0)
FULL = RestorationOptions((0.6,))
VIEWS = ("aten.select", "aten.detach")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    return tiny_restorer(module_folders.mktemp("restorer"))


@pytest.fixture(scope="module")
def plain(model: Any) -> Tensor:
    return sample(model)


def restored(
    model: Any, loaded: LoadedAdapter, options: RestorationOptions = FULL, count: int = 1, **sizes: Any
) -> Any:
    return apply_restoration(model, loaded, reference_identity(count), lq_latents(count, **sizes), options)


def forward(model: Any, rows: tuple[int, ...], per_chunk: int = 1, step: Tensor | None = None, **sizes: Any) -> Tensor:
    """One call through the model's wrapper, as the sampler makes it."""
    load_model(model)
    inputs = unet_inputs("SD15", rows, per_chunk, **sizes)
    options = dict(model.model_options["transformer_options"])
    sigma = torch.full((len(inputs["x"]),), 3.0)
    options |= {"cond_or_uncond": list(rows), "sigmas": sigma if step is None else step}
    options["original_shape"] = list(inputs["x"].shape)
    args = {
        "input": inputs["x"] * 3,
        "timestep": sigma,
        "c": {"c_crossattn": inputs["context"], "transformer_options": options},
        "cond_or_uncond": list(rows),
    }
    with torch.inference_mode():
        wrapper = model.model_options.get("model_function_wrapper")
        if wrapper is None:
            return model.model.apply_model(args["input"], sigma, **args["c"])
        return wrapper(model.model.apply_model, args)


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (1,), (0, 0, 1)])
def test_all_blocks_and_attentions_run(
    model: Any, loaded: LoadedAdapter, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: Counter[str] = Counter()
    mark = CallState.mark
    monkeypatch.setattr(CallState, "mark", lambda self, slot, layer: (marks.update([slot]), mark(self, slot, layer))[1])
    forward(restored(model, loaded), rows)
    assert marks == {SLOT: 22, ATTENTION_SLOT: 16}
    assert len(RESIDUAL_BLOCKS) == 22


def test_rows_give_the_same_numbers_in_any_order_and_alone(model: Any, loaded: LoadedAdapter) -> None:
    patched = restored(model, loaded)
    together, swapped = forward(patched, (1, 0)), forward(patched, (0, 1))
    torch.testing.assert_close(together[0], swapped[1], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(together[1], swapped[0], atol=2e-5, rtol=1e-5)
    alone = torch.cat([forward(patched, (1,)), forward(patched, (0,))])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_a_batch_restores_each_picture_after_its_own_reference(model: Any, loaded: LoadedAdapter) -> None:
    """Three pictures, references and scales at once equal three runs of one each."""
    latents, identity = lq_latents(3), reference_identity(3)
    scales = (0.2, 0.9, 0.0)
    together = apply_restoration(model, loaded, identity, latents, RestorationOptions(scales))
    found = forward(together, (1, 0), per_chunk=3).unflatten(0, (2, 3))
    whole = unet_inputs("SD15", (1, 0), 3)
    for number in range(3):
        one = replace(
            identity,
            features={
                name: value if name == "image_tokens_zero" else value[number : number + 1]
                for name, value in identity.features.items()
            },
        )
        single = apply_restoration(
            model, loaded, one, latents[number : number + 1], RestorationOptions(scales[number : number + 1])
        )
        load_model(single)
        rows = [number, 3 + number]
        options = {**single.model_options["transformer_options"], "cond_or_uncond": [1, 0]}
        sigma = torch.full((2,), 3.0)
        args = {
            "input": whole["x"][rows] * 3,
            "timestep": sigma,
            "c": {"c_crossattn": whole["context"][rows], "transformer_options": options},
            "cond_or_uncond": [1, 0],
        }
        with torch.inference_mode():
            expected = single.model_options["model_function_wrapper"](single.model.apply_model, args)
        torch.testing.assert_close(found[:, number], expected, atol=5e-5, rtol=1e-4)


def test_one_reference_serves_a_batch(model: Any, loaded: LoadedAdapter) -> None:
    patched = apply_restoration(model, loaded, reference_identity(1), lq_latents(2), FULL)
    assert sample(patched, batch=2).shape == (2, 4, 8, 8)
    shared = restored(model, loaded)
    assert torch.isfinite(sample(shared, batch=3)).all()


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (11, 16)])
def test_sizes_that_are_no_multiples_of_64_pixels(model: Any, loaded: LoadedAdapter, size: tuple[int, int]) -> None:
    patched = restored(model, loaded, size=size)
    assert sample(patched, size=size).shape == (1, 4, *size)


def test_all_at_zero_is_bit_equal_to_the_plain_model(model: Any, loaded: LoadedAdapter, plain: Tensor) -> None:
    assert torch.equal(sample(restored(model, loaded, OFF)), plain)


def test_zero_with_lora_is_the_model_with_the_lora_merged(model: Any, loaded: LoadedAdapter, plain: Tensor) -> None:
    off = sample(restored(model, loaded, replace(OFF, lora_strength=1.0)))
    reference = model.clone()
    by_hand = {
        f"diffusion_model.{name}": ("diff", (low.up.float() @ low.down.float(),))
        for name, low in loaded.adapter.low_rank.items()
    }
    assert len(reference.add_patches(by_hand)) == len(by_hand) == 128
    torch.testing.assert_close(off, sample(reference), atol=1e-4, rtol=1e-4)
    assert (off - plain).abs().max() > 1e-3


def test_every_part_changes_the_result_on_its_own(model: Any, loaded: LoadedAdapter, plain: Tensor) -> None:
    parts = {
        "ID": replace(OFF, id_scales=(1.0,)),
        "structure": replace(OFF, structure_strength=1.0),
        "half structure": replace(OFF, structure_strength=0.5),
        "FIR": replace(OFF, fir_strength=1.0),
        "LoRA": replace(OFF, lora_strength=1.0),
    }
    results = [plain, *(sample(restored(model, loaded, options)) for options in parts.values())]
    for number, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-4 for other in results[:number]), list(parts)[number - 1]


def test_the_damaged_picture_and_the_reference_show(model: Any, loaded: LoadedAdapter) -> None:
    first = sample(restored(model, loaded))
    other_picture = apply_restoration(model, loaded, reference_identity(), lq_latents(seed=7), FULL)
    other_person = apply_restoration(model, loaded, reference_identity(seed=7), lq_latents(), FULL)
    for other in (other_picture, other_person):
        assert (sample(other) - first).abs().max() > 1e-3


def test_removal_leaves_no_trace(model: Any, loaded: LoadedAdapter, plain: Tensor) -> None:
    patched = restored(model, loaded)
    shown = sample(patched)
    assert (shown - plain).abs().max() > 1e-3
    assert torch.equal(sample(model), plain)
    assert torch.equal(sample(patched), shown)
    assert torch.equal(sample(model), plain)
    assert not model.object_patches
    assert not model.model_options["transformer_options"].get("patches_replace")


def test_a_failing_step_leaves_no_trace(model: Any, loaded: LoadedAdapter, plain: Tensor) -> None:
    patched = restored(model, loaded)

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    patched.set_model_output_block_patch(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(patched)
    assert holder_of(patched).call is None
    assert torch.equal(sample(model), plain)


def test_structure_features_are_made_once_a_step(
    model: Any, loaded: LoadedAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the host runs positive and negative rows apart."""
    encoder = loaded.adapter.network.structure
    calls: list[Tensor] = []
    original = type(encoder).forward
    monkeypatch.setattr(type(encoder), "forward", lambda self, x, t: (calls.append(t), original(self, x, t))[1])
    patched = restored(model, loaded)
    sample(patched, steps=3)
    assert len(calls) == 3
    assert len({float(t[0]) for t in calls}) == 3
    calls.clear()
    long, short = conditioning(tokens=77, seed=1), conditioning(tokens=40, seed=2)
    sample(patched, long, short, steps=3)
    assert len(calls) == 3


def test_step_range(model: Any, loaded: LoadedAdapter) -> None:
    base = replace(FULL, lora_strength=0.0)
    ranges = [(1.0, 1.0), (0.5, 1.0), (0.0, 0.5), (0.0, 1.0)]
    never, *others = (
        sample(restored(model, loaded, replace(base, start_percent=a, end_percent=b)), steps=4) for a, b in ranges
    )
    assert torch.equal(never, sample(model, steps=4))
    for number, one in enumerate(others):
        assert all((one - other).abs().max() > 1e-4 for other in [never, *others[:number]])


def test_outside_the_range_no_operation_is_added(model: Any, loaded: LoadedAdapter) -> None:
    never = replace(FULL, lora_strength=0.0, start_percent=1.0, end_percent=1.0)
    step = torch.full((1,), 3.0)

    def counted(patched: Any) -> Any:
        forward(patched, (1, 0), step=step)
        return count_calls(lambda: forward(patched, (1, 0), step=step))

    base, off = counted(model), counted(restored(model, loaded, never))
    # The step's sigma is read once; its selection is a view.
    added = {name: count for name, count in (off.names - base.names).items() if name not in VIEWS}
    assert added == {"aten.item": 1}


def test_a_step_reads_no_value_back(model: Any, loaded: LoadedAdapter) -> None:
    patched = restored(model, loaded, replace(FULL, lora_strength=0.0))
    base = count_calls(lambda: forward(model, (1, 0)))
    forward(patched, (1, 0))
    counted = count_calls(lambda: forward(patched, (1, 0)))
    assert not {"aten.item", "aten._local_scalar_dense"} & set(counted.names - base.names)
    assert counted.copies == base.copies


def test_a_constant_fir_adapter_takes_its_exact_shortcut(model: Any, tmp_path: Path) -> None:
    from likeness_pack.tools.standins.restorerid import residual_widths

    zeros = {}
    for name in residual_widths([32, 64, 128, 128]):
        prefix = f"model.diffusion_model.{name}.IDBalance.mlp_shared.0"
        zeros |= {f"{prefix}.weight": torch.zeros(16, 64, 3, 3), f"{prefix}.bias": torch.zeros(16)}
    degenerate = tiny_restorer(tmp_path, **zeros)
    adapter: Any = degenerate.adapter
    assert len(adapter.constant) == 22
    assert "blind to picture and reference" in adapter.report.as_text()
    short = restored(model, degenerate)
    adapter.constant = frozenset()
    long = restored(model, degenerate)
    torch.testing.assert_close(forward(short, (1, 0)), forward(long, (1, 0)), atol=1e-4, rtol=1e-4)
    few, many = (count_calls(lambda m=m: forward(m, (1, 0))).names["aten.conv2d"] for m in (short, long))
    assert many - few == 66


def test_applying_twice_is_refused(model: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(BaseModelMismatch, match="Match References"):
        restored(restored(model, loaded), loaded)


def test_timesteps_set_twice_are_those_of_the_last(model: Any) -> None:
    twice = with_official_timesteps(with_official_timesteps(model, 50), 20).get_model_object("model_sampling")
    once = with_official_timesteps(model, 20).get_model_object("model_sampling")
    sigmas = official_sigmas(20)
    assert torch.equal(twice.timestep(sigmas), once.timestep(sigmas))
    assert not torch.equal(
        twice.timestep(sigmas), with_official_timesteps(model, 50).get_model_object("model_sampling").timestep(sigmas)
    )


def test_a_lost_wrapper_is_an_error(model: Any, loaded: LoadedAdapter) -> None:
    patched = restored(model, loaded)
    patched.set_model_unet_function_wrapper(lambda f, args: f(args["input"], args["timestep"], **args["c"]))
    with pytest.raises(PatchIncomplete, match="wrapper"):
        sample(patched)
    with pytest.raises(PatchIncomplete, match="wrapper"):
        call_unet(restored(model, loaded), "SD15", (0,))


def test_a_block_taken_by_another_node_is_an_error(model: Any, loaded: LoadedAdapter) -> None:
    patched = restored(model, loaded)
    patched.add_object_patch("diffusion_model.input_blocks.4.0.forward", lambda x, emb: x.repeat(1, 2, 1, 1))
    with pytest.raises(PatchIncomplete, match="all 22 residual layers.*found 21"):
        sample(patched)


def test_a_latent_of_another_size_is_told(model: Any, loaded: LoadedAdapter) -> None:
    with pytest.raises(BaseModelMismatch, match="8 x 8.*found 1 of 16 x 16"):
        sample(restored(model, loaded), size=16)
    with pytest.raises(BaseModelMismatch, match="2 latents"):
        sample(apply_restoration(model, loaded, reference_identity(), lq_latents(2), FULL), batch=3)


def test_wrong_models_and_references_are_told(model: Any, loaded: LoadedAdapter, tmp_path: Path) -> None:
    with pytest.raises(BaseModelMismatch, match="SD1.5"):
        restored(tiny_model("SDXL"), loaded)
    with pytest.raises(BaseModelMismatch, match="width"):
        restored(model, tiny_restorer(tmp_path, channels=64))
    with pytest.raises(EncoderMismatch, match="Encode Restoration Reference"):
        apply_restoration(model, loaded, arcface_identity(), lq_latents(), FULL)
    with pytest.raises(EncoderMismatch, match="connect it to Apply RestorerID"):
        apply_identity(model, loaded, arcface_identity(), ApplyOptions())
    with pytest.raises(EncoderMismatch, match="found 3"):
        apply_restoration(model, loaded, reference_identity(3), lq_latents(2), FULL)


def test_company_of_another_identity_adapter(model: Any, loaded: LoadedAdapter, tmp_path: Path) -> None:
    from likeness_pack.adapters import registry
    from tiny_adapters import write_faceid

    faceid = LoadedAdapter(registry.load(write_faceid(tmp_path / "faceid.bin", "SD15")))
    options = ApplyOptions(strength=0.5)
    after = apply_identity(restored(model, loaded), faceid, arcface_identity(), options)
    before = restored(apply_identity(model, faceid, arcface_identity(), options), loaded)
    torch.testing.assert_close(sample(after), sample(before), atol=1e-3, rtol=1e-3)
    assert (sample(after) - sample(restored(model, loaded))).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(loaded: LoadedAdapter, dtype: torch.dtype) -> None:
    half = sample(restored(tiny_model("SD15", dtype=dtype), loaded), steps=1)
    whole = sample(restored(tiny_model("SD15"), loaded), steps=1)
    assert torch.isfinite(half).all()
    assert (half.float() - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_copies_share_the_weights(model: Any, loaded: LoadedAdapter) -> None:
    patched = restored(model, loaded)
    clone = patched.clone()
    ours = [
        [patch for patch in one.object_patches.values() if isinstance(patch, RestoredBlock)] for one in (patched, clone)
    ]
    assert len(ours[0]) == 22
    assert all(a is b for a, b in zip(*ours, strict=True))
    assert torch.equal(sample(clone), sample(patched))


def test_another_strength_sees_the_reference_that_was_projected(model: Any, loaded: LoadedAdapter) -> None:
    """A reference is projected once for as long as it is in use, for any number of pictures; another one is its own."""
    identity = reference_identity()
    full, half = (
        apply_restoration(model, loaded, identity, lq_latents(), RestorationOptions((scale,))) for scale in (1.0, 0.5)
    )
    other = apply_restoration(model, loaded, reference_identity(seed=7), lq_latents(), FULL)
    batch = apply_restoration(model, loaded, identity, lq_latents(2), FULL)
    tokens = [
        {patch.tokens.positive.data_ptr() for patch in one.object_patches.values() if isinstance(patch, RestoredBlock)}
        for one in (full, half, other, batch)
    ]
    assert tokens[0] == tokens[1] == tokens[3] and all(len(one) == 1 for one in tokens)
    assert tokens[0] != tokens[2]
    assert not torch.equal(sample(full), sample(half))
