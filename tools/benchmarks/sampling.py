"""Steps of a model under the host's own sampler: their calls, their waits for the device, their time."""

from __future__ import annotations

import importlib
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from likeness_pack.evaluation.benchmark import Ratio, rotated
from likeness_pack.evaluation.operations import count_calls
from torch import Tensor

Callback = Callable[..., None]
STEPS = 3


class Stepped(Protocol):
    """Whatever runs a model in steps."""

    def run(self, model: Any, steps: int, callback: Callback | None = None) -> Tensor:
        """Run the steps; ``callback`` is called after each."""
        ...


@dataclass(frozen=True)
class Sampled:
    """What is sampled.

    Attributes:
        noise: (B, C, H, W) or (B, C, T, H, W).
        positive, negative: the host's conditioning.
        cfg: guidance; 1 leaves the negative rows out.
    """

    noise: Tensor
    positive: list[list[Any]]
    negative: list[list[Any]]
    cfg: float = 4.0

    def run(self, model: Any, steps: int, callback: Callback | None = None) -> Tensor:
        """Sample with Euler as the host's custom sampling does."""
        samplers = importlib.import_module("comfy.samplers")
        sigmas = samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        with torch.inference_mode():
            result: Tensor = importlib.import_module("comfy.sample").sample_custom(
                model,
                self.noise,
                self.cfg,
                samplers.sampler_object("euler"),
                sigmas,
                self.positive,
                self.negative,
                torch.zeros_like(self.noise),
                callback=callback,
                disable_pbar=True,
                seed=3,
            )
        return result


@dataclass(frozen=True)
class Prompted:
    """Sampling of models that come with a prompt of their own, as (MODEL, CONDITIONING); others see the usual one."""

    sampled: Sampled

    def run(self, model: Any, steps: int, callback: Callback | None = None) -> Tensor:
        """As `Sampled`."""
        patched, positive = model if isinstance(model, tuple) else (model, self.sampled.positive)
        return replace(self.sampled, positive=positive).run(patched, steps, callback)


@dataclass(frozen=True)
class StepCost:
    """One step of the loop, loading and preparing left out.

    Attributes:
        compute: dispatched operations that are no views.
        synchronisations: reads of a value back to the host.
    """

    compute: int
    synchronisations: int


def step_cost(sampled: Stepped, model: Any) -> StepCost:
    """What three steps dispatch more than two, after a first run has filled every cache."""
    sampled.run(model, 2)
    two, three = (count_calls(lambda n=steps: sampled.run(model, n)) for steps in (2, 3))  # type: ignore[misc]
    return StepCost(three.compute - two.compute, three.synchronisations - two.synchronisations)


def device_waits(sampled: Stepped, model: Any, device: str) -> int:
    """Waits of one step for a CUDA device, as torch reports them; on a CPU reads of values, which a card waits for."""
    if device == "cpu":
        return step_cost(sampled, model).synchronisations
    sampled.run(model, 2)
    two, three = (_reported_waits(sampled, model, steps) for steps in (2, 3))
    return three - two


def _reported_waits(sampled: Stepped, model: Any, steps: int) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            sampled.run(model, steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def clock(device: str) -> float:
    """Now: this process's CPU time, which other load does not change; on a card, the time when it is done."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_time(sampled: Stepped, model: Any, device: str) -> float:
    """Mean time of a step, from the end of the first step to the end of the last."""
    ends: list[float] = []
    sampled.run(model, STEPS, lambda *_: ends.append(clock(device)))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def step_time_ratios(
    sampled: Stepped, base: Any, variants: Mapping[int, Any], device: str, rounds: int
) -> dict[int, Ratio]:
    """Time of a step of each variant against the plain model's, interleaved, in rounds that begin elsewhere."""
    models = {0: base, **variants}
    order = list(models)
    times: dict[int, list[float]] = {number: [] for number in models}
    for turn in range(rounds + 1):
        for place in rotated([str(number) for number in order], turn):
            spent = step_time(sampled, models[int(place)], device)
            if turn:
                times[int(place)].append(spent)
    found = {}
    for number in variants:
        shares = [a / b for a, b in zip(times[number], times[0], strict=True)]
        name = f"step time, {number} / none"
        found[number] = Ratio(name, statistics.median(shares), min(shares), max(shares))
    return found
