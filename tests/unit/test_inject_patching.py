"""Copy-on-write of a MODEL's options, for hosts whose clone copies deeply and for hosts whose clone shares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from likeness_pack.inject.patching import (
    attention_slot,
    clone_model,
    forward_wrapper,
    middle_patches,
    set_attention_slot,
    set_middle_patches,
)


class Model:
    """A patcher with the host's methods; ``copier`` is how its clone treats the options."""

    def __init__(self, options: dict[str, Any], copier: Callable[[Any], Any]) -> None:
        self.model_options = options
        self._copier = copier

    def clone(self) -> Model:
        return Model(self._copier(self.model_options), self._copier)

    def set_model_attn2_replace(self, patch: Any, name: str, number: int, index: int) -> None:
        replaced = self.model_options["transformer_options"].setdefault("patches_replace", {})
        replaced.setdefault("attn2", {})[(name, number, index)] = patch


def no_copy(options: Any) -> Any:
    return options


@pytest.fixture(params=[copy.deepcopy, copy.copy, no_copy], ids=["deep", "shallow", "shared"])
def model(request: pytest.FixtureRequest) -> Model:
    def other() -> None: ...

    options = {
        "transformer_options": {
            "patches": {"middle_patch": [other], "attn1_patch": [other]},
            "patches_replace": {"attn2": {("input", 1, 0): other}, "attn1": {("middle", 0): other}},
            "of_another_pack": {"a": 1},
        },
        "model_function_wrapper": other,
        "sampler_cfg_function": other,
    }
    return Model(options, request.param)


def as_seen(model: Model) -> dict[str, Any]:
    """The options as plain data, to compare before and after."""
    options = model.model_options["transformer_options"]
    return {
        "patches": {name: list(patches) for name, patches in options.get("patches", {}).items()},
        "replaced": {name: dict(slots) for name, slots in options.get("patches_replace", {}).items()},
        "rest": sorted(options),
        "wrapper": model.model_options.get("model_function_wrapper"),
    }


def test_patching_a_clone_leaves_the_model_as_it_was(model: Model) -> None:
    before = as_seen(model)
    clone = clone_model(model)
    set_attention_slot(clone, ("input", 1, 0), len)
    set_attention_slot(clone, ("output", 3, 0), len)
    set_middle_patches(clone, [len])
    clone.model_options["model_function_wrapper"] = len
    # What a later node does to the clone through the host's own methods.
    clone.model_options["transformer_options"]["patches"]["attn1_patch"].append(len)
    clone.model_options["transformer_options"]["patches_replace"]["attn1"]["middle", 0] = len
    assert as_seen(model) == before


def test_a_clone_keeps_what_other_packs_set(model: Model) -> None:
    clone = clone_model(model)
    other = model.model_options["sampler_cfg_function"]
    assert clone.model_options["transformer_options"]["of_another_pack"] == {"a": 1}
    assert forward_wrapper(clone) is other
    assert middle_patches(clone) == [other]
    assert attention_slot(clone, ("input", 1, 0)) is other


def test_two_clones_do_not_meet(model: Model) -> None:
    first, second = clone_model(model), clone_model(model)
    set_attention_slot(first, ("output", 3, 0), len)
    set_middle_patches(first, [])
    assert attention_slot(second, ("output", 3, 0)) is None
    assert len(middle_patches(second)) == 1


def test_a_model_without_options_gets_its_own_tables() -> None:
    bare = Model({}, copy.copy)
    clone = clone_model(bare)
    assert middle_patches(clone) == []
    assert attention_slot(clone, ("input", 1, 0)) is None
    assert forward_wrapper(clone) is None
    # Empty tables would make hosts take the slower way through their patches.
    assert clone.model_options["transformer_options"] == {}
    set_middle_patches(clone, [len])
    assert middle_patches(clone) == [len]
    assert bare.model_options == {}


def test_a_patch_of_a_whole_block_is_found_for_its_layers() -> None:
    model = Model({"transformer_options": {"patches_replace": {"attn2": {("input", 4): len}}}}, copy.copy)
    assert attention_slot(model, ("input", 4, 1)) is len
    set_attention_slot(model, ("input", 4, 1), max)
    assert attention_slot(model, ("input", 4, 1)) is max
    assert attention_slot(model, ("input", 4, 0)) is len


def test_the_list_that_is_handed_in_is_not_kept() -> None:
    model, patches = Model({"transformer_options": {}}, copy.copy), [len]
    set_middle_patches(model, patches)
    patches.append(max)
    assert middle_patches(model) == [len]
    middle_patches(model).append(max)
    assert middle_patches(model) == [len]
