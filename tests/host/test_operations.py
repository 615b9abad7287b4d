"""What an adapter costs in one UNet step, counted and not timed: operations, host synchronisations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_inprocess import tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from unet_calls import call_unet


@pytest.fixture(scope="module")
def model() -> Any:
    """SDXL's layout, 70 layers."""
    return tiny_model("SDXL")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """FaceID with sixteen tokens."""
    path = write_faceid(module_folders.mktemp("ops") / "faceid.bin", "SDXL", tokens=16)
    return LoadedAdapter(registry.load(path))


def _step(model: Any) -> Any:
    state = CallState()
    call_unet(model, "SDXL", (1, 0), state)  # the first step fills caches
    return count_calls(lambda: call_unet(model, "SDXL", (1, 0), state, loaded=True))


def test_one_cached_identity_costs_a_tenth_at_most(model: Any, loaded: LoadedAdapter) -> None:
    """ATen calls that are no views: at most 1.10 times the plain step, and no value read back to the host."""
    base = _step(model)
    patched = _step(apply_identity(model, loaded, arcface_identity(), ApplyOptions(lora_strength=0.0)))
    assert patched.compute <= 1.10 * base.compute, f"{patched.compute} against {base.compute}"
    assert patched.synchronisations - base.synchronisations == 0
    assert patched.copies - base.copies == 0


@pytest.mark.parametrize(("people", "limit"), [(2, 1.15), (3, 1.25), (4, 1.25)])
def test_several_identities(model: Any, loaded: LoadedAdapter, people: int, limit: float) -> None:
    """Further people cost less than the first, masked or not, and read nothing back."""
    base = _step(model)
    for masked in (False, True):
        patched = model
        for number in range(people):
            options = ApplyOptions(lora_strength=0.0, mask=torch.rand(16, 16) if masked else None)
            patched = apply_identity(patched, loaded, arcface_identity(number), options)
        counted = _step(patched)
        assert counted.compute <= limit * base.compute, f"{counted.compute} against {base.compute}"
        assert counted.synchronisations == base.synchronisations


def test_a_mask_adds_no_operation(model: Any, loaded: LoadedAdapter) -> None:
    """The masked sum is one fused operation; masks are resized once."""
    plain = _step(apply_identity(model, loaded, arcface_identity(), ApplyOptions(lora_strength=0.0)))
    options = ApplyOptions(lora_strength=0.0, mask=torch.rand(32, 32))
    masked = _step(apply_identity(model, loaded, arcface_identity(), options))
    assert masked.compute == plain.compute
    assert masked.synchronisations == plain.synchronisations


def test_outside_the_range_nothing_is_added(model: Any, loaded: LoadedAdapter) -> None:
    """One sigma is read for the whole step, whatever the number of layers; no other operation is added."""
    never = ApplyOptions(lora_strength=0.0, start_percent=1.0, end_percent=1.0)
    base, off = _step(model), _step(apply_identity(model, loaded, arcface_identity(), never))
    assert off.compute - off.synchronisations == base.compute - base.synchronisations
    assert off.synchronisations - base.synchronisations <= 1
