"""Topic ``step``: what an adapter adds to a step of the sampled model, and to applying it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from likeness_pack.evaluation.benchmark import Ratio, count_ratio, time_ratios

from .families import Case, unet_cases
from .families_unet import seeded
from .rows import STEP, Found, Row, Task
from .sampling import Sampled, device_waits, step_cost, step_time_ratios

OPERATIONS, SYNCHRONISATIONS, TIME = "operations", "synchronisations added", "step time"
APPLYING, WEIGHTS = "apply time", "weights held"
# Channels of the first level of the wider SDXL; the published one has 320.
WIDE = 64


def unet_steps(task: Task) -> Found:
    """Every family on a UNet that changes a sampled model."""
    from . import families_more, families_unet

    for case in unet_cases(task.folder):
        yield from measured(case, task)
    for build in (*families_unet.BUILDERS.values(), *families_more.BUILDERS.values()):
        for case in build(task.folder):
            yield from measured(case, task)


def transformer_steps(task: Task) -> Found:
    """The families on Flux, Wan and HunyuanVideo, where the ComfyUI under measure has them."""
    from host_inprocess import engine

    from .families_dit import BUILDERS

    if not engine().has_wrappers:
        return
    for build in BUILDERS.values():
        for case in build(task.folder):
            yield from measured(case, task)


def controlling(task: Task) -> Found:
    """The plain models against themselves: how far from 1 a time may be by chance."""
    from host_inprocess import Kind, conditioning, tiny_model

    kinds: dict[Kind, str] = {"SD15": "SD1.5", "SDXL": "SDXL"}
    for kind, name in kinds.items():
        model = tiny_model(kind)
        texts = [conditioning(kind, seed=seed) for seed in (1, 2)]
        sampled = Sampled(seeded(1, 4, 8, 8, seed=5), *texts)
        times = step_time_ratios(sampled, model, {1: model.clone()}, task.device, task.rounds)
        yield Row("control", "", f"the plain {name} model against itself", 0, TIME, times[1])


def wide_steps(task: Task) -> Found:
    """FaceID on SDXL at a latent of 512 x 512 and twice the width, where the model's own work weighs more."""
    from host_inprocess import conditioning, tiny_model
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_faceid

    model = tiny_model("SDXL", WIDE)
    loaded = LoadedAdapter(registry.load(write_faceid(task.folder / "wide.bin", "SDXL", WIDE, tokens=16)))
    patched = apply_identity(model, loaded, arcface_identity(0), ApplyOptions(lora_strength=0.0))
    sampled = Sampled(seeded(1, 4, 64, 64, seed=5), conditioning("SDXL", seed=1), conditioning("SDXL", seed=2))
    times = step_time_ratios(sampled, model, {1: patched}, task.device, max(3, task.rounds // 2))
    yield Row("512 x 512", "ip_adapter_faceid", f"FaceID of 16 tokens, SDXL at width {WIDE}", 1, TIME, times[1])


def measured(case: Case, task: Task) -> Iterator[Row]:
    """All rows of one family."""
    plain = step_cost(case.sampled, case.model)
    waits = plain.synchronisations if task.device == "cpu" else device_waits(case.sampled, case.model, task.device)
    patched = {}
    for people in case.people:
        # One after the other, since what was projected of an identity is kept with it.
        model = patched[people] = case.apply(people, 1.0, 0)
        cost, limit = step_cost(case.sampled, model), case.limits.get(people)
        ratio = count_ratio(f"{OPERATIONS}, {people} / none", cost.compute, plain.compute, limit)
        yield _row(case, people, OPERATIONS, ratio)
        if task.device == "cuda":
            added = float(device_waits(case.sampled, model, "cuda") - waits)
        else:
            added = float(cost.synchronisations - waits)
        yield _row(case, people, SYNCHRONISATIONS, Ratio(f"{SYNCHRONISATIONS}, {people}", added, added, added, 0.0))
        yield _row(case, people, WEIGHTS, _held(case, model, people))
    times = step_time_ratios(case.sampled, case.model, patched, task.device, task.rounds)
    for people, ratio in times.items():
        yield _row(case, people, TIME, ratio)
    # A host forgets a MODEL before it applies with another strength, and keeps what other nodes gave.
    del patched, model
    yield _row(case, 1, APPLYING, _applying(case, task))


def _held(case: Case, model: object, people: int) -> Ratio:
    from reachable import tensor_bytes

    known = [case.model, *case.beside]
    held = tensor_bytes([*known, case.loaded, model]) - tensor_bytes(known)
    return count_ratio(f"{WEIGHTS}, {people} / the adapter's file", held, case.file_bytes)


def _applying(case: Case, task: Task) -> Ratio:
    fresh = itertools.count(10)
    for number in (0, *range(10, 11 + task.rounds)):
        case.given(number)

    def first() -> object:
        return case.apply(1, 1.0, next(fresh))

    name = f"{APPLYING}, changed strength / new identity"
    device = torch.device(task.device)
    return time_ratios(first, {name: lambda: case.apply(1, 0.5, 0)}, device, task.rounds)[0]


def _row(case: Case, people: int, measure: str, ratio: Ratio) -> Row:
    return Row(STEP, case.family, case.subject, people, measure, ratio)
