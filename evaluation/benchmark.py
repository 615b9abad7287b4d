"""Ratios measured side by side in one process: the only speeds this project promises."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """One measured ratio.

    Attributes:
        name: what against what.
        value: the ratio (median of paired rounds for times).
        low, high: smallest and largest round; equal to ``value`` for counts.
        target: the value it should not exceed (or reach, for speed-ups), or None.
    """

    name: str
    value: float
    low: float
    high: float
    target: float | None = None

    def as_text(self) -> str:
        """One line."""
        spread = "" if self.low == self.high else f"  [{self.low:.3f} .. {self.high:.3f}]"
        target = "" if self.target is None else f"  target {self.target:g}"
        return f"{self.name}: {self.value:.3f}{spread}{target}"


def count_ratio(name: str, part: float, whole: float, target: float | None = None) -> Ratio:
    """A ratio of two counts."""
    value = part / whole
    return Ratio(name, value, value, value, target)


def _seconds(step: Step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    # CPU time of this process: other work on the machine does not count.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    started = clock()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def time_ratios(
    base: Step,
    variants: Mapping[str, Step],
    device: torch.device,
    rounds: int = 20,
    targets: Mapping[str, float] | None = None,
) -> list[Ratio]:
    """Time variants against ``base``, interleaved, the order rotated each round, the first round thrown away."""
    steps: dict[str, Step] = {"": base, **variants}
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 1):
        for name in rotated(names, number):
            spent = _seconds(steps[name], device)
            if number:
                times[name].append(spent)
    return [_paired(name, times[name], times[""], (targets or {}).get(name)) for name in variants]


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The names, beginning ``number`` places later."""
    shift = number % len(names)
    return [*names[shift:], *names[:shift]]


def _paired(name: str, part: Sequence[float], whole: Sequence[float], target: float | None) -> Ratio:
    rounds = [a / b for a, b in zip(part, whole, strict=True)]
    return Ratio(name, statistics.median(rounds), min(rounds), max(rounds), target)
