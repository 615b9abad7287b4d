"""FACT on the real UNet: every layer, order of rows, strength, masks, removal, weights under the host's care."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from host_inprocess import sample, tiny_model
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from reachable import tensor_bytes
from tiny_adapters import write_faceid, write_fact
from unet_calls import call_unet, patched_calls


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SD1.5 of real layout."""
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """A FACT file of fitting widths, read through the registry."""
    return LoadedAdapter(registry.load(write_fact(module_folders.mktemp("fact") / "renamed.ckpt")))


@pytest.mark.parametrize("rows", [(1, 0), (0, 1), (0,), (1,), (0, 0, 1)])
def test_every_layer_is_called(model: Any, loaded: LoadedAdapter, rows: tuple[int, ...]) -> None:
    """All sixteen gated layers run in one forward pass."""
    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5))
    assert patched_calls(patched, "SD15", rows) == 16


def test_row_order_and_batches_do_not_matter(model: Any, loaded: LoadedAdapter) -> None:
    """Rows give the same numbers in either order, in calls of their own, and beside a second picture."""
    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5))
    both = call_unet(patched, "SD15", (1, 0))
    swapped = call_unet(patched, "SD15", (0, 1))
    torch.testing.assert_close(both, swapped.flip(0), atol=1e-5, rtol=1e-5)
    alone = torch.cat([call_unet(patched, "SD15", (1,)), call_unet(patched, "SD15", (0,))])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)
    pairs = call_unet(patched, "SD15", (1, 0), per_chunk=2)
    assert pairs.shape[0] == 4
    assert (pairs[0] - pairs[2]).abs().max() > 1e-4


def test_identity_changes_the_picture_and_leaves_no_trace(model: Any, loaded: LoadedAdapter) -> None:
    """The patched clone differs; the model that came in samples bit-equal before and after; strength 0 is bit-equal
    too.
    """
    before = sample(model)
    patched = sample(apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5)))
    assert (patched - before).abs().max() > 1e-3
    assert torch.equal(sample(model), before)
    off = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.0))
    assert torch.equal(sample(off), before)


def test_two_photos_give_thirty_two_tokens(model: Any, loaded: LoadedAdapter) -> None:
    """Photos are concatenated on the token axis, and change the result."""
    tokens = loaded.adapter.tokens(transface_identity(photos=2), TokenOptions())
    assert tokens.cond.shape == (1, 32, 768)
    assert tokens.uncond is not None and tokens.uncond.shape == (1, 32, 768)
    one = call_unet(apply_identity(model, loaded, transface_identity(), ApplyOptions()), "SD15", (0,))
    two = call_unet(apply_identity(model, loaded, transface_identity(photos=2), ApplyOptions()), "SD15", (0,))
    assert (one - two).abs().max() > 1e-4


def test_composes_with_faceid(model: Any, loaded: LoadedAdapter, module_folders: ModuleFolders) -> None:
    """Both families on one model, in either order: the same numbers, all layers of both."""
    faceid = LoadedAdapter(registry.load(write_faceid(module_folders.mktemp("both") / "faceid.bin", "SD15")))

    def fact(m: Any) -> Any:
        return apply_identity(m, loaded, transface_identity(), ApplyOptions(strength=0.5))

    def face(m: Any) -> Any:
        return apply_identity(m, faceid, arcface_identity(), ApplyOptions(strength=0.5))

    first, second = face(fact(model)), fact(face(model))
    assert patched_calls(first, "SD15", (1, 0)) == patched_calls(second, "SD15", (1, 0)) == 32
    assert torch.equal(call_unet(first, "SD15", (1, 0)), call_unet(second, "SD15", (1, 0)))
    sample(first, steps=1)


def test_mask_confines_the_added_term(model: Any, loaded: LoadedAdapter) -> None:
    """Outside a mask a layer returns the hidden state bit-equal."""
    mask = torch.zeros(16, 16)
    mask[:, :8] = 1
    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(mask=mask))
    (patch,) = patched.model_options["transformer_options"]["patches"]["middle_patch"]
    x = torch.randn(2, 64, 32)
    extra = {"block": ("input", 1), "block_index": 0, "cond_or_uncond": [1, 0], "original_shape": [2, 4, 8, 8]}
    out = patch(x, extra).view(2, 8, 8, 32)
    assert torch.equal(out[:, :, 5:], x.view(2, 8, 8, 32)[:, :, 5:])
    assert (out[:, :, :3] - x.view(2, 8, 8, 32)[:, :, :3]).abs().max() > 1e-3


def test_step_range(model: Any, loaded: LoadedAdapter) -> None:
    """Outside its range the layer adds nothing."""
    never = apply_identity(model, loaded, transface_identity(), ApplyOptions(start_percent=1.0, end_percent=1.0))
    assert torch.equal(sample(never, steps=3), sample(model, steps=3))


def test_weights_are_the_hosts_to_move(model: Any, loaded: LoadedAdapter) -> None:
    """While sampling the host has the gated layers loaded, not the projector, and unloads them when asked."""
    management = importlib.import_module("comfy.model_management")

    def listed(network: Any) -> bool:
        return any(entry.model is network.patcher for entry in management.current_loaded_models)

    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5))
    management.unload_all_models()
    sample(patched, steps=1)
    assert listed(loaded.managed_steps) and not listed(loaded.managed)
    management.unload_all_models()
    assert not listed(loaded.managed_steps)
    sample(patched, steps=1)


def test_options_hold_what_runs_in_a_step(model: Any, loaded: LoadedAdapter) -> None:
    """Keys and values of both branches and the gated layers, whose bytes the report names; not the projector."""
    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5))
    call_unet(patched, "SD15", (1, 0))
    held = tensor_bytes(patched.model_options)
    assert 0 < held <= 1.05 * loaded.adapter.report.sample_bytes
    assert held < 0.3 * loaded.adapter.report.encode_bytes


def test_wrong_base_and_wrong_encoder(loaded: LoadedAdapter, model: Any) -> None:
    """SDXL is refused with both contexts, an ArcFace identity with the encoder's name."""
    with pytest.raises(BaseModelMismatch, match="768.*2048"):
        apply_identity(tiny_model("SDXL"), loaded, transface_identity(), ApplyOptions())
    with pytest.raises(EncoderMismatch, match="arcface_buffalo_l"):
        apply_identity(model, loaded, arcface_identity(), ApplyOptions())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(loaded: LoadedAdapter, dtype: torch.dtype) -> None:
    """The layers compute in the model's dtype."""
    patched = apply_identity(tiny_model("SD15", dtype=dtype), loaded, transface_identity(), ApplyOptions(strength=0.5))
    assert torch.isfinite(sample(patched, steps=1)).all()
