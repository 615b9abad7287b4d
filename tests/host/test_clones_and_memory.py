"""Clones of a patched model under both clone semantics, and what its options hold."""

from __future__ import annotations

import copy
import importlib
import types
from typing import Any

import pytest
import torch
from host_inprocess import tiny_model
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import registry
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from reachable import tensor_bytes
from tiny_adapters import write_faceid, write_fact
from unet_calls import call_unet


@pytest.fixture(scope="module")
def faceid(module_folders: ModuleFolders) -> LoadedAdapter:
    """FaceID for the tiny SD1.5."""
    return LoadedAdapter(registry.load(write_faceid(module_folders.mktemp("m") / "faceid.bin", "SD15")))


@pytest.fixture(scope="module")
def fact(module_folders: ModuleFolders) -> LoadedAdapter:
    """FACT for the tiny SD1.5."""
    return LoadedAdapter(registry.load(write_fact(module_folders.mktemp("m") / "fact.ckpt")))


def _copy_containers(value: Any, memo: Any = None) -> Any:
    """The newer clone semantics: dicts and lists are copied, what they hold is shared."""
    if isinstance(value, dict):
        return {key: _copy_containers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_containers(item) for item in value]
    return value


def _share_everything(value: Any, memo: Any = None) -> Any:
    """The harshest case: nested tables are the same objects in every clone."""
    return dict(value) if isinstance(value, dict) else value


@pytest.fixture(params=["deep", "shared leaves", "shared tables"])
def clone_semantics(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Swap only the copy step of the host's clone."""
    steps = {"shared leaves": _copy_containers, "shared tables": _share_everything}
    if request.param in steps:
        patcher = importlib.import_module("comfy.model_patcher")
        fake = types.SimpleNamespace(**{**vars(copy), "deepcopy": steps[request.param]})
        monkeypatch.setattr(patcher, "copy", fake)
    return str(request.param)


def _slots(model: Any) -> dict[Any, Any]:
    return model.model_options["transformer_options"]["patches_replace"]["attn2"]


def test_five_weight_changes_leave_one_callback(faceid: LoadedAdapter, clone_semantics: str) -> None:
    """Applying with five strengths to one cached model gives five models with one term each, and leaves the model
    clean.
    """
    model = tiny_model("SD15")
    results = [apply_identity(model, faceid, arcface_identity(), ApplyOptions(strength=s / 5)) for s in range(1, 6)]
    for result in results:
        assert len(_slots(result)) == 16
        assert all(len(patch.terms) == 1 and patch.previous is None for patch in _slots(result).values())
    assert [next(iter(_slots(result).values())).terms[0].strength for result in results] == [s / 5 for s in range(1, 6)]
    assert "patches_replace" not in model.model_options["transformer_options"]
    assert "model_function_wrapper" not in model.model_options


def test_five_weight_changes_of_a_gated_adapter(fact: LoadedAdapter, clone_semantics: str) -> None:
    """The list of middle patches does not grow either."""
    model = tiny_model("SD15")
    for strength in range(1, 6):
        result = apply_identity(model, fact, transface_identity(), ApplyOptions(strength=strength / 5))
        (patch,) = result.model_options["transformer_options"]["patches"]["middle_patch"]
        assert len(patch.terms) == 1
    assert "patches" not in model.model_options["transformer_options"]


@pytest.mark.parametrize("which", ["faceid", "fact"])
def test_five_clones_share_one_copy(which: str, request: pytest.FixtureRequest, clone_semantics: str) -> None:
    """However a clone copies its options, there is one copy of all tensors, and results stay equal."""
    loaded = request.getfixturevalue(which)
    identity = arcface_identity() if which == "faceid" else transface_identity()
    model = apply_identity(tiny_model("SD15"), loaded, identity, ApplyOptions(lora_strength=0.0))
    clones = [model]
    for _ in range(5):
        clones.append(clones[-1].clone())
    assert tensor_bytes([clone.model_options for clone in clones]) == tensor_bytes(model.model_options)
    assert torch.equal(call_unet(clones[-1], "SD15", (1, 0)), call_unet(model, "SD15", (1, 0)))


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
def test_options_hold_the_cache_alone(kind: str, module_folders: ModuleFolders) -> None:
    """After sampling calls the options reach no more than keys and values of one identity, plus five percent."""
    model = tiny_model(kind)
    path = write_faceid(module_folders.mktemp("cache") / "faceid.bin", kind, tokens=16)
    loaded = LoadedAdapter(registry.load(path, variant="auto"))
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions())
    call_unet(patched, kind, (1, 0))
    cache = sum(2 * 2 * 16 * layer.width * 4 for layer in unet_layers(model))
    assert 0 < tensor_bytes(patched.model_options) <= 1.05 * cache


def test_a_changed_strength_projects_nothing(faceid: LoadedAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model with the identity is alive, another strength uses the same keys and values."""
    model = tiny_model("SD15")
    first = apply_identity(model, faceid, arcface_identity(7), ApplyOptions(strength=0.2))
    calls: list[int] = []
    real = type(faceid.adapter).tokens

    def counted(self: Any, *args: Any) -> Any:
        calls.append(1)
        return real(self, *args)

    monkeypatch.setattr(type(faceid.adapter), "tokens", counted)
    second = apply_identity(model, faceid, arcface_identity(7), ApplyOptions(strength=0.9))
    assert not calls
    terms = [next(iter(_slots(m).values())).terms[0] for m in (first, second)]
    assert terms[0].keys_values is terms[1].keys_values
    apply_identity(model, faceid, arcface_identity(8), ApplyOptions())
    assert calls == [1]
