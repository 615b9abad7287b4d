"""DreamFit on SD1.5 in the host's own UNet: what the pass records, what a step reads and costs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from dreamfit_models import write_dit_file, write_unet_file
from host_inprocess import conditioning, engine, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, HostTooOld, PatchIncomplete
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.errors import BadMask, LikenessError
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.garment import ReferenceOptions, UNetReference, apply_reference, encode_reference
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.reference_features import SLOT
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from unet_calls import call_unet

LATENT = torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def file(model: Any, module_folders: ModuleFolders) -> Path:
    """The adapter alone."""
    return write_unet_file(module_folders.mktemp("dreamfit") / "a.ckpt", model.model.diffusion_model, base=False)


@pytest.fixture(scope="module")
def loaded(file: Path) -> LoadedAdapter:
    return LoadedAdapter(registry.load(file))


@pytest.fixture(scope="module")
def reference(model: Any, loaded: LoadedAdapter) -> UNetReference:
    return _encode(loaded, model)


def _encode(loaded: LoadedAdapter, model: Any, negative: bool = True, **options: Any) -> Any:
    texts = conditioning(seed=6), conditioning(seed=7) if negative else None
    return encode_reference(loaded, model, LATENT, *texts, **options)


def _step(model: Any) -> Any:
    state = CallState()
    call_unet(model, "SD15", (1, 0), state)
    return count_calls(lambda: call_unet(model, "SD15", (1, 0), state, loaded=True))


def test_the_reference_changes_the_picture_and_leaves_the_model_alone(model: Any, reference: UNetReference) -> None:
    before = sample(model)
    patched = apply_reference(model, reference, ReferenceOptions())
    assert not torch.allclose(sample(patched), before, atol=1e-3)
    assert torch.equal(sample(model), before)
    assert "attn1" not in model.model_options["transformer_options"].get("patches_replace", {})


def test_strength_zero_and_a_mask_of_no_token_and_no_step_are_the_plain_model(
    model: Any, reference: UNetReference
) -> None:
    before, corner = sample(model), torch.zeros(1, 800, 800)
    corner[..., 0, 0] = 1
    for options in (
        ReferenceOptions(strength=0.0),
        ReferenceOptions(mask=corner),
        ReferenceOptions(start_percent=1.0, end_percent=1.0),
    ):
        assert torch.equal(sample(apply_reference(model, reference, options)), before)
    with pytest.raises(BadMask, match="black everywhere"):
        apply_reference(model, reference, ReferenceOptions(mask=torch.zeros(1, 8, 8)))


def test_the_pass_leaves_the_encoder_as_it_was(model: Any, loaded: LoadedAdapter) -> None:
    before = sample(model)
    first, second = _encode(loaded, model), _encode(loaded, model)
    assert first.key == second.key
    assert torch.equal(sample(model), before)
    assert not model.patches
    assert "patches" not in model.model_options["transformer_options"]


def test_what_is_recorded_is_that_of_the_changed_weights(
    model: Any, loaded: LoadedAdapter, reference: UNetReference
) -> None:
    """Without the LoRA the hidden states differ; other patches of the model play no part in the pass."""
    plain = _encode(loaded, model, lora_strength=0.0)
    assert not torch.allclose(_middle(plain), _middle(reference), atol=1e-3)
    disturbed = model.clone()
    disturbed.set_model_attn1_output_patch(lambda n, extra: n * 0)
    assert torch.equal(_middle(_encode(loaded, disturbed)), _middle(reference))
    assert len(reference.keys_values) == 10
    assert tuple(_middle(reference).shape) == (2, 2, 128)


def _middle(reference: UNetReference) -> torch.Tensor:
    return reference.keys_values.rows(0, (1, 0), torch.zeros(()))[0]


def test_negative_rows_read_their_own_text(model: Any, loaded: LoadedAdapter, reference: UNetReference) -> None:
    negative, positive = _middle(reference)
    assert not torch.allclose(negative, positive, atol=1e-4)
    same = _middle(_encode(loaded, model, negative=False))
    assert torch.equal(same[0], same[1])
    assert torch.allclose(same[1], positive, atol=1e-5)


def test_texts_of_different_length_go_in_two_passes(
    model: Any, loaded: LoadedAdapter, reference: UNetReference
) -> None:
    long = conditioning(seed=7, tokens=154)
    found = encode_reference(loaded, model, LATENT, conditioning(seed=6), long)
    assert torch.allclose(_middle(found)[1], _middle(reference)[1], atol=1e-5)


def test_the_file_s_own_unet_is_the_encoder(
    tmp_path: Path, reference: UNetReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's own loader builds it (which knows SD1.5 by its width); another model connected plays no part."""
    engine()
    known = importlib.import_module("comfy.supported_models").SD15.unet_config
    monkeypatch.setitem(known, "model_channels", 32)
    path = write_unet_file(tmp_path / "whole.ckpt", tiny_model("SD15").model.diffusion_model)
    whole = LoadedAdapter(registry.load(path))
    assert whole.adapter.has_base
    found = _encode(whole, None)
    assert torch.allclose(_middle(found), _middle(reference), atol=1e-5)
    assert _encode(whole, tiny_model("SD15", seed=9)).key == found.key
    assert len(whole.models) == 1


def test_every_read_block_is_counted(model: Any, reference: UNetReference) -> None:
    patched = apply_reference(model, reference, ReferenceOptions())
    state = CallState()
    call_unet(patched, "SD15", (1, 0), state)
    assert state.called == {SLOT: set(range(10))}
    patched.set_model_attn1_replace(lambda q, k, v, extra: q, "output", 5, 0)
    with pytest.raises(PatchIncomplete, match="all 10 reference layers"):
        sample(patched)


def test_a_patch_found_in_the_slot_is_still_called(model: Any, reference: UNetReference) -> None:
    other = model.clone()
    calls: list[int] = []

    def foreign(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        calls.append(extra["block"][1])
        return q

    other.set_model_attn1_replace(foreign, "output", 5)
    sample(apply_reference(other, reference, ReferenceOptions()), steps=1, cfg=1.0)
    assert calls == [5]


def test_a_step_costs_a_tenth_at_most_and_reads_nothing_back(model: Any, reference: UNetReference) -> None:
    """The step alone; the pass is one forward of the encoder more, whatever the number of steps."""
    base = _step(model)
    patched = _step(apply_reference(model, reference, ReferenceOptions(mask=torch.rand(1, 16, 16))))
    assert patched.compute <= 1.10 * base.compute, f"{patched.compute} against {base.compute}"
    assert patched.synchronisations == base.synchronisations
    assert patched.copies == base.copies


def test_the_pass_reads_nothing_back_but_its_key(model: Any, loaded: LoadedAdapter) -> None:
    """Counted apart from the steps: one forward, ten pairs of projections, their copies."""
    base = _step(model)
    _encode(loaded, model)
    whole = count_calls(lambda: _encode(loaded, model))
    assert whole.names["aten.convolution"] == base.names["aten.convolution"]
    linear = sum(base.names[name] for name in ("aten.addmm", "aten.mm", "aten.linear"))
    # Each LoRA is one product when its weight is changed.
    assert sum(whole.names[name] for name in ("aten.addmm", "aten.mm", "aten.linear")) <= linear + 20 + 278


def test_the_same_reference_twice_does_not_stack(model: Any, reference: UNetReference) -> None:
    once = apply_reference(model, reference, ReferenceOptions())
    twice = apply_reference(once, reference, ReferenceOptions())
    assert torch.equal(sample(twice), sample(once))
    half = apply_reference(once, reference, ReferenceOptions(strength=0.5))
    assert torch.equal(sample(half), sample(apply_reference(model, reference, ReferenceOptions(strength=0.5))))


def test_it_stands_beside_a_face(model: Any, reference: UNetReference, tmp_path: Path) -> None:
    from identities import arcface_identity

    face = LoadedAdapter(registry.load(write_faceid(tmp_path / "face.bin", "SD15")))
    both = apply_identity(
        apply_reference(model, reference, ReferenceOptions()), face, arcface_identity(), ApplyOptions()
    )
    state = CallState()
    call_unet(both, "SD15", (1, 0), state)
    assert {slot: len(layers) for slot, layers in state.called.items()} == {SLOT: 10, "attn2": 16}
    assert torch.isfinite(sample(both)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(file: Path, dtype: torch.dtype) -> None:
    half = tiny_model("SD15", dtype=dtype)
    found = _encode(LoadedAdapter(registry.load(file)), half)
    assert found.keys_values.rows(0, (0,), torch.zeros((), dtype=dtype))[0].dtype == dtype
    assert torch.isfinite(sample(apply_reference(half, found, ReferenceOptions()))).all()


def test_the_report_tells_pass_and_step_apart(reference: UNetReference) -> None:
    assert "reference pass: 2 rows, once, through the connected model at 8 x 12 (latent)" in reference.report
    assert "each step: one attention and one addition more in 10 layers; no weights" in reference.report


def test_what_does_not_fit_is_refused(
    loaded: LoadedAdapter, model: Any, reference: UNetReference, tmp_path: Path
) -> None:
    wide, sdxl = tiny_model("SD15", model_channels=64), tiny_model("SDXL")
    for other in (wide, sdxl):
        with pytest.raises(BaseModelMismatch, match="connect an SD1.5 model"):
            _encode(loaded, other)
        with pytest.raises(BaseModelMismatch, match="connect an SD1.5 model"):
            apply_reference(other, reference, ReferenceOptions())
    with pytest.raises(LikenessError, match="plain SD1.5, since the file holds the adapter alone"):
        _encode(loaded, None)
    with pytest.raises(BaseModelMismatch, match="one plain prompt of width 768, found 2 parts"):
        encode_reference(loaded, model, LATENT, conditioning() * 2)
    with pytest.raises(BaseModelMismatch, match=r"one picture \(1, 4, H, W\)"):
        encode_reference(loaded, model, LATENT.repeat(2, 1, 1, 1), conditioning())
    face = LoadedAdapter(registry.load(write_faceid(tmp_path / "face.bin", "SD15")))
    with pytest.raises(LikenessError, match="a DreamFit adapter, found"):
        _encode(face, model)


def test_apply_identity_names_the_nodes_for_it(model: Any, loaded: LoadedAdapter) -> None:
    from identities import arcface_identity

    with pytest.raises(EncoderMismatch, match="use 'Encode Garment' and 'Apply Garment'"):
        apply_identity(model, loaded, arcface_identity(), ApplyOptions())


def test_a_flux_file_names_the_comfyui_it_needs(model: Any, tmp_path: Path) -> None:
    if engine().has_wrappers:
        return
    flux = LoadedAdapter(registry.load(write_dit_file(tmp_path / "a.bin")))
    with pytest.raises(HostTooOld, match="ComfyUI 0.3.60 or newer"):
        _encode(flux, model)
