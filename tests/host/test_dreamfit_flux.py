"""DreamFit in the host's own Flux (upstream only): appended keys, costs, company, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dreamfit_models import TINY, flux_call, flux_model, write_dit_file
from host_inprocess import engine
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, PatchIncomplete
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.garment import DiTReference, ReferenceOptions, apply_reference, encode_reference
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.reference_features import SLOT
from module_folders import ModuleFolders

pytestmark = pytest.mark.skipif(not engine().has_wrappers, reason="this ComfyUI has no Flux")
BLOCKS = [("double_block", 0), ("double_block", 1), *(("single_block", number) for number in range(3))]


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LATENT, X = _noise(1, 16, 6, 10, seed=1), _noise(1, 16, 8, 6, seed=2)
TEXT = _noise(1, 5, 48, seed=3), _noise(1, 32, seed=4), 3.5
CONDITION = [[_noise(1, 7, 48, seed=5), {"pooled_output": _noise(1, 32, seed=6)}]]


@pytest.fixture(scope="module")
def model() -> Any:
    return flux_model()


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    return LoadedAdapter(registry.load(write_dit_file(module_folders.mktemp("dreamfit") / "a.bin")))


@pytest.fixture(scope="module")
def reference(model: Any, loaded: LoadedAdapter) -> DiTReference:
    return encode_reference(loaded, model, LATENT, CONDITION)


def _call(model: Any, **options: Any) -> torch.Tensor:
    return flux_call(model, X, 0.7, *TEXT, **options)


def _sampled(model: Any) -> torch.Tensor:
    import comfy.sample

    condition = [[TEXT[0], {"pooled_output": TEXT[1], "guidance": TEXT[2]}]]
    latent = torch.zeros_like(X)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, X, 2, 1.0, "euler", "simple", condition, condition, latent, disable_pbar=True, seed=1
        )


def test_the_reference_changes_the_picture_and_leaves_the_model_alone(model: Any, reference: DiTReference) -> None:
    before, sampled = _call(model), _sampled(model)
    patched = apply_reference(model, reference, ReferenceOptions())
    assert not torch.allclose(_call(patched), before, atol=1e-3)
    assert not torch.allclose(_sampled(patched), sampled, atol=1e-3)
    assert torch.equal(_call(model), before) and torch.equal(_sampled(model), sampled)
    assert "dit" not in model.model_options["transformer_options"].get("patches_replace", {})
    assert not model.patches


def test_strength_zero_and_no_step_are_the_plain_model(model: Any, reference: DiTReference) -> None:
    before = _sampled(model)
    for options in (ReferenceOptions(strength=0.0), ReferenceOptions(start_percent=1.0, end_percent=1.0)):
        assert torch.equal(_sampled(apply_reference(model, reference, options)), before)


def test_what_the_bank_holds(reference: DiTReference) -> None:
    """Double blocks: the picture's tokens; single blocks: the text's too."""
    like = torch.zeros(3, 4, 1, 16)
    shapes = [tuple(reference.network.network.pair(key, like)[0].shape) for key in BLOCKS]
    assert reference.blocks == tuple(BLOCKS)
    assert shapes == [(3, 4, 15, 16)] * 2 + [(3, 4, 22, 16)] * 3
    assert "15 reference tokens (single blocks: 7 of text too) to attend to in 5 layers" in reference.report
    assert "text: 7 tokens; the authors use 512" in reference.report
    assert "reference pass: 1 row, once, at 10 x 6 (latent)" in reference.report


def test_guidance_of_the_authors_unless_the_conditioning_sets_one(model: Any, loaded: LoadedAdapter) -> None:
    def first(condition: Any) -> torch.Tensor:
        found = encode_reference(loaded, model, LATENT, condition)
        return found.network.network.pair(("single_block", 2), torch.zeros(1, 4, 1, 16))[0]

    text, values = CONDITION[0]
    assert torch.equal(first([[text, {**values, "guidance": 4.0}]]), first(CONDITION))
    assert not torch.equal(first([[text, {**values, "guidance": 2.0}]]), first(CONDITION))


def test_a_negative_prompt_is_not_dropped_silently(model: Any, loaded: LoadedAdapter, reference: DiTReference) -> None:
    found = encode_reference(loaded, model, LATENT, CONDITION, CONDITION)
    assert found.key == reference.key
    assert "negative: not used" in found.report and "negative" not in reference.report


def test_every_block_is_counted(model: Any, reference: DiTReference) -> None:
    patched = apply_reference(model, reference, ReferenceOptions())
    state = CallState()
    _call(patched, likeness_call=state)
    assert state.called == {SLOT: set(BLOCKS)}
    patched.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "single_block", 1)
    with pytest.raises(PatchIncomplete, match="all 5 reference layers"):
        _sampled(patched)


def test_a_step_costs_a_tenth_at_most_and_reads_nothing_back(model: Any, reference: DiTReference) -> None:
    """Two concatenations for each block; the pass is counted apart: one forward more for the whole run."""
    patched = apply_reference(model, reference, ReferenceOptions())
    base, step = _counted(model), _counted(patched)
    assert step.compute <= 1.10 * base.compute, f"{step.compute} against {base.compute}"
    assert step.names["aten.cat"] - base.names["aten.cat"] == 2 * len(BLOCKS)
    assert step.synchronisations == base.synchronisations
    assert step.copies == base.copies


def _counted(model: Any) -> Any:
    _call(model)
    diffusion, options = model.model.diffusion_model, model.model_options["transformer_options"]
    with torch.inference_mode():
        return count_calls(
            lambda: diffusion(
                X, torch.tensor([0.7]), context=TEXT[0], y=TEXT[1], guidance=torch.tensor([3.5]),
                transformer_options=options,
            )
        )  # fmt: skip


def test_the_weights_of_the_bank_belong_to_the_host(model: Any, reference: DiTReference) -> None:
    patched = apply_reference(model, reference, ReferenceOptions())
    assert reference.network.patcher in patched.model_patches_models()
    clone = patched.clone()
    table = clone.model_options["transformer_options"]["patches_replace"]["dit"]
    assert table[("double_block", 0)].terms[0].network is reference.network


def test_it_stands_beside_patches_of_other_packs(model: Any, reference: DiTReference) -> None:
    """A replaced block and an attention of the user's choice are both still called, with the longer keys."""
    lengths: list[tuple[int, int]] = []

    def attention(attend: Any, q: torch.Tensor, k: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        lengths.append((q.shape[2], k.shape[2]))
        return attend(q, k, *rest, **named)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = attention
    seen: list[str] = []

    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        seen.append("single")
        return extra["original_block"](args)

    other.set_model_patch_replace(block, "dit", "single_block", 2)
    alone = _call(apply_reference(model, reference, ReferenceOptions()))
    assert torch.equal(_call(apply_reference(other, reference, ReferenceOptions())), alone)
    assert lengths == [(17, 32)] * 2 + [(17, 39)] * 3
    assert seen == ["single"]


def test_an_attention_mask_leaves_the_reference_visible(model: Any, reference: DiTReference) -> None:
    patched = apply_reference(model, reference, ReferenceOptions())
    diffusion, options = patched.model.diffusion_model, patched.model_options["transformer_options"]
    plain = _call(patched)
    for mask in (torch.zeros(1, 1, 17, 17), torch.ones(1, 1, 17, 17, dtype=torch.bool)):
        with torch.inference_mode():
            got = diffusion(
                X, torch.tensor([0.7]), context=TEXT[0], y=TEXT[1], guidance=torch.tensor([3.5]),
                transformer_options=options, attention_mask=mask,
            )  # fmt: skip
        assert torch.allclose(got, plain, atol=1e-4)


def test_rows_of_a_batch_read_the_same(model: Any, reference: DiTReference) -> None:
    patched = apply_reference(model, reference, ReferenceOptions())
    single = _call(patched)
    text, pooled, guidance = TEXT
    rows = flux_call(patched, X.repeat(2, 1, 1, 1), 0.7, text.repeat(2, 1, 1), pooled.repeat(2, 1), guidance)
    assert torch.allclose(rows[1:], single, atol=1e-5)


def test_the_same_reference_twice_does_not_stack(model: Any, reference: DiTReference) -> None:
    once = apply_reference(model, reference, ReferenceOptions())
    assert torch.equal(_call(apply_reference(once, reference, ReferenceOptions())), _call(once))


def test_what_does_not_fit_is_refused(
    model: Any, loaded: LoadedAdapter, reference: DiTReference, tmp_path: Path
) -> None:
    shallow = flux_model({**TINY, "depth": 1})
    for call in (
        lambda: encode_reference(loaded, shallow, LATENT, CONDITION),
        lambda: apply_reference(shallow, reference, ReferenceOptions()),
    ):
        with pytest.raises(BaseModelMismatch, match="connect the FLUX.1-dev model"):
            call()
    for options in (ReferenceOptions(strength=0.5), ReferenceOptions(mask=torch.ones(1, 8, 8))):
        with pytest.raises(LikenessError, match="share one attention"):
            apply_reference(model, reference, options)
    with pytest.raises(LikenessError, match="the FLUX.1-dev model that will sample"):
        encode_reference(loaded, None, LATENT, CONDITION)
    with pytest.raises(BaseModelMismatch, match="one plain prompt of width 48"):
        encode_reference(loaded, model, LATENT, [[torch.zeros(1, 4, 40), {}]])


def test_it_stands_beside_a_face(model: Any, reference: DiTReference) -> None:
    """An identity block that was applied before or after calls the reference block, or is called by it."""
    from likeness_pack.inject.dit_blocks import IdentityBlock
    from likeness_pack.inject.patching import block_slot, clone_model, set_block_slot

    alone = _call(apply_reference(model, reference, ReferenceOptions()))
    before = clone_model(model)
    after = apply_reference(model, reference, ReferenceOptions())
    for key in BLOCKS:
        set_block_slot(before, key, IdentityBlock(key, (), None))
        set_block_slot(after, key, IdentityBlock(key, (), block_slot(after, key)))
    assert torch.equal(_call(apply_reference(before, reference, ReferenceOptions())), alone)
    assert torch.equal(_call(after), alone)


class _Brighter:
    """An identity that adds the same to every token."""

    key, places = "brighter", tuple(BLOCKS)

    def acts(self, extra: Any) -> bool:
        return True

    def add(self, out: torch.Tensor, image: torch.Tensor, place: Any, extra: Any) -> torch.Tensor:
        return out + 0.1


def test_each_is_replaced_beneath_the_other(model: Any, reference: DiTReference) -> None:
    """Face, reference, the same face; reference, face, the same reference: each acts once."""
    from likeness_pack.inject.dit_blocks import patch_blocks
    from likeness_pack.inject.patching import clone_model

    def with_face(given: Any) -> Any:
        clone = clone_model(given)
        patch_blocks(clone, _Brighter())  # type: ignore[arg-type]
        return clone

    def with_reference(given: Any) -> Any:
        return apply_reference(given, reference, ReferenceOptions())

    def made(given: Any) -> torch.Tensor:
        return _call(given, likeness_call=CallState())

    both = made(with_reference(with_face(model)))
    assert not torch.equal(both, made(with_reference(model)))
    assert torch.equal(made(with_face(with_reference(with_face(model)))), both)
    turned = made(with_face(with_reference(model)))
    assert torch.equal(made(with_reference(with_face(with_reference(model)))), turned)
