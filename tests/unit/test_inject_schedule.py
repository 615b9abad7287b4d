"""Step ranges by noise level, and what one forward pass knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject.call_state import STATE_KEY, CallState, call_state, read_sigma
from likeness_pack.inject.schedule import StepRange, step_range


class Sampling:
    """A schedule whose noise level falls from 10 to 0, as the host's model_sampling object."""

    def percent_to_sigma(self, percent: float) -> float:
        return 10.0 * (1.0 - percent)


class Model:
    def get_model_object(self, name: str) -> Any:
        return {"model_sampling": Sampling()}[name]


def at(sigma: float) -> dict[str, Any]:
    return {"sigmas": torch.tensor([sigma, sigma])}


@pytest.mark.parametrize(
    ("start", "end", "acting"),
    [
        (0.0, 1.0, [0, 2, 5, 8, 10]),
        (0.0, 0.5, [5, 8, 10]),
        (0.5, 1.0, [0, 2, 5]),
        (0.2, 0.8, [2, 5, 8]),
        (0.5, 0.5, [5]),
    ],
)
def test_a_range_acts_between_its_ends_both_included(start: float, end: float, acting: list[int]) -> None:
    steps = step_range(Model(), start, end)
    assert [sigma for sigma in (0, 2, 5, 8, 10) if steps.active(at(float(sigma)))] == acting


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.4), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0)])
def test_a_range_that_cannot_be_is_told(start: float, end: float) -> None:
    with pytest.raises(LikenessError, match="set end_percent no smaller than start_percent"):
        step_range(Model(), start, end)


def test_a_full_range_reads_nothing() -> None:
    class Unread:
        def get(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

    assert StepRange(0.0, 1.0, 10.0, 0.0).active(Unread())  # type: ignore[arg-type]


def test_sigma_is_read_from_the_device_once_in_a_call() -> None:
    class Counted:
        reads = 0

        def __getitem__(self, index: int) -> float:
            self.reads += 1
            return 5.0

    sigmas = Counted()
    extra = {"sigmas": sigmas, STATE_KEY: CallState()}
    steps = step_range(Model(), 0.2, 0.8)
    assert all(steps.active(extra) for _ in range(16))
    assert sigmas.reads == 1


def test_without_a_sigma_ranges_from_the_start_do_not_end() -> None:
    assert read_sigma({}) == float("inf")
    assert read_sigma(at(3.0)) == 3.0


def test_a_state_of_another_pack_is_not_taken_for_ours() -> None:
    assert call_state({STATE_KEY: {"called": 1}}) is None
    assert call_state({}) is None
    assert not step_range(Model(), 0.5, 0.6).active({STATE_KEY: object(), **at(9.0)})


def test_layers_that_ran_are_counted_once_each() -> None:
    state = CallState()
    for layer in (1, 2, 2, 1):
        state.mark("attn2", layer)
    state.mark("middle", 1)
    assert {slot: len(layers) for slot, layers in state.called.items()} == {"attn2": 2, "middle": 1}
