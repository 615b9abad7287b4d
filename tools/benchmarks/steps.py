"""Topic ``step``: what an adapter adds to a step of the sampled model, and to applying it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from likeness_pack.evaluation.benchmark import Ratio, count_ratio, time_ratios

from .families import NEEDS_NEWER, WITHOUT_STEP, Case, unet_cases
from .rows import STEP, Found, NotMeasured, Row, Task
from .sampling import device_waits, step_cost, step_time_ratios

OPERATIONS, SYNCHRONISATIONS, TIME = "operations", "synchronisations added", "step time"
APPLYING, WEIGHTS = "apply time", "weights held"


def unet_steps(task: Task) -> Found:
    """Every family on a UNet that patches a sampled model; the others with their reason."""
    from .families_unet import BUILDERS

    for case in unet_cases(task.folder):
        yield from measured(case, task)
    for build in BUILDERS.values():
        for case in build(task.folder):
            yield from measured(case, task)
    for family, reason in WITHOUT_STEP.items():
        yield NotMeasured(family, reason)


def transformer_steps(task: Task) -> Found:
    """The families on Flux, Wan and HunyuanVideo, where the ComfyUI under measure has them."""
    from host_inprocess import engine

    from .families_dit import BUILDERS

    if not engine().has_wrappers:
        for family, name in NEEDS_NEWER.items():
            yield NotMeasured(family, f"this ComfyUI has no {name}; set COMFYUI_PATH and COMFYUI_PYTHON")
        return
    for build in BUILDERS.values():
        for case in build(task.folder):
            yield from measured(case, task)


def measured(case: Case, task: Task) -> Iterator[Row]:
    """All rows of one family."""
    patched = {people: case.apply(people, 1.0, 0) for people in case.people}
    plain = step_cost(case.sampled, case.model)
    for people, model in patched.items():
        cost, limit = step_cost(case.sampled, model), case.limits.get(people)
        ratio = count_ratio(f"{OPERATIONS}, {people} / none", cost.compute, plain.compute, limit)
        yield _row(case, people, OPERATIONS, ratio)
        if task.device == "cuda":
            added = float(device_waits(case.sampled, model) - device_waits(case.sampled, case.model))
        else:
            added = float(cost.synchronisations - plain.synchronisations)
        yield _row(case, people, SYNCHRONISATIONS, Ratio(f"{SYNCHRONISATIONS}, {people}", added, added, added, 0.0))
        yield _row(case, people, WEIGHTS, _held(case, model, people))
    times = step_time_ratios(case.sampled, case.model, patched, task.device, task.rounds)
    for people, ratio in times.items():
        yield _row(case, people, TIME, ratio)
    yield _row(case, 1, APPLYING, _applying(case, task))


def _held(case: Case, model: object, people: int) -> Ratio:
    from reachable import tensor_bytes

    known = [case.model, *case.beside]
    held = tensor_bytes([*known, case.loaded, model]) - tensor_bytes(known)
    return count_ratio(f"{WEIGHTS}, {people} / the adapter's file", held, case.file_bytes)


def _applying(case: Case, task: Task) -> Ratio:
    fresh = itertools.count(10)

    def first() -> object:
        return case.apply(1, 1.0, next(fresh))

    name = f"{APPLYING}, changed strength / new identity"
    device = torch.device(task.device)
    return time_ratios(first, {name: lambda: case.apply(1, 0.5, 0)}, device, task.rounds)[0]


def _row(case: Case, people: int, measure: str, ratio: Ratio) -> Row:
    return Row(STEP, case.family, case.subject, people, measure, ratio)
