"""Topics of whole pictures: swaps, restoration, lip-sync, and the import of the pack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from likeness_pack.evaluation.benchmark import Ratio
from torch import Tensor

from .networks import timed
from .rows import Found, Row, Task

FACES = 8


def swapping(task: Task) -> Found:
    """Eight faces at once against one by one: ReSwapper's network at small and published width, and a whole frame.

    At small width a batch saves the cost of calls. At published width (weights drawn) it saves the transforms of the
    wide kernels, see `adapters.swappers.reswapper.winograd`; large maps go through in lanes that the cache holds.
    """
    from likeness_pack.adapters import registry
    from likeness_pack.adapters.swappers.reswapper.arch import SwapNetwork
    from likeness_pack.adapters.swappers.reswapper.swapper import ReSwapper
    from swap_standins import write_reswapper

    chance = torch.Generator().manual_seed(0)
    source = torch.randn(FACES, 512, generator=chance)
    torch.manual_seed(0)
    small = registry.load(write_reswapper(task.folder / "swapper.pth"), kind="swapper", variant="128")
    wide = ReSwapper(SwapNetwork(), torch.eye(512), 128)
    for subject, swapper, side, few in (
        ("ReSwapper, stand-in of small width", small, 64, task.rounds),
        ("ReSwapper, published width, drawn weights", wide, 128, 2),
    ):
        crops = torch.rand(FACES, 3, side, side, generator=chance)
        one, all_of_them = (partial(_swapped, swapper, crops, source, step) for step in (1, FACES))
        name = "faces a second, batch of 8 / one by one"
        yield from timed(task, "swap", "reswapper", subject, all_of_them, {name: one}, few)
    one, all_of_them = (partial(_frames, small, step) for step in (1, FACES))
    name = "frames a second of cut, swap and paste, batch of 8 / one by one"
    subject = "ReSwapper, stand-in of small width"
    yield from timed(task, "swap", "reswapper", subject, all_of_them, {name: one}, task.rounds)


def _swapped(swapper: Any, crops: Tensor, source: Tensor, step: int) -> object:
    return [swapper.swap(crops[i : i + step], source[i : i + step]) for i in range(0, len(crops), step)]


def _frames(swapper: Any, step: int) -> object:
    from identities import arcface_identity
    from likeness_pack.adapters.swappers.pipeline import swap_faces
    from likeness_pack.faces.swap_paste import paste_swaps
    from swap_standins import batch_of, faces_at

    images = torch.rand(FACES, 120, 160, 3, generator=torch.Generator().manual_seed(1))
    faces = batch_of(*(faces_at((80, 60, 60)) for _ in range(FACES)), size=(120, 160))
    done = []
    for start in range(0, FACES, step):
        part = faces.with_images(faces.images[start : start + step])
        found = swap_faces(images[start : start + step], part, swapper, arcface_identity())
        done.append(paste_swaps(images[start : start + step], found.faces, found.crops))
    return done


def restoring(task: Task) -> Found:
    """Four pictures at once against one by one: LAFR's network at published size, and RestorerID's steps."""
    from likeness_pack.adapters.families.lafr.arch import LatentAlignAdapter

    torch.manual_seed(0)
    network = LatentAlignAdapter().eval().to(task.device)
    latents = torch.randn(4, 4, 32, 32).to(task.device)

    @torch.inference_mode()
    def aligned(step: int) -> object:
        return [network(latents[i : i + step]) for i in range(0, 4, step)]

    name = "pictures a second, batch of 4 / one by one"
    subject = "LAFR, published size, drawn weights"
    one = {name: partial(aligned, 1)}
    yield from timed(task, "restore", "lafr", subject, partial(aligned, 4), one, task.rounds)
    single, four = _restorations(task)
    subject = "RestorerID, SD1.5, two steps"
    yield from timed(task, "restore", "restorerid", subject, four, {name: single}, max(2, task.rounds // 2))


def _restorations(task: Task) -> tuple[Callable[[], object], Callable[[], object]]:
    from dataclasses import replace

    from host_inprocess import tiny_model
    from likeness_pack.inject.restorerid import RestorationOptions, apply_restoration
    from restorer_cases import lq_latents, reference_identity, tiny_restorer

    from .families_unet import sd15

    model, loaded, sampled = tiny_model("SD15"), tiny_restorer(task.folder), sd15()
    options = RestorationOptions((1.0,), lora_strength=0.0)
    one, four = (apply_restoration(model, loaded, reference_identity(n), lq_latents(n), options) for n in (1, 4))
    whole = replace(sampled, noise=sampled.noise.repeat(4, 1, 1, 1))
    return lambda: [sampled.run(one, 2) for _ in range(4)], lambda: whole.run(four, 2)


def exchanging(task: Task) -> Found:
    """DreamID: four targets in one run of SwapNet against one by one, without the VAE."""
    from likeness_pack.inject.dreamid import SwapOptions

    from .families_more import DreamIdSwap
    from .families_unet import seeded
    from .sampling import Sampled

    swap = DreamIdSwap(task.folder / "dreamid_pictures.safetensors")
    models = {count: swap.apply(count, 0, SwapOptions(1)).model for count in (1, 4)}
    noise = {count: seeded(count, 4, 8, 8, seed=5) for count in (1, 4)}

    def swapped(count: int) -> object:
        sampled = Sampled(noise[count], swap.text, swap.text, 1.0)
        return [sampled.run(models[count], 2) for _ in range(4 // count)]

    one = {"pictures a second, batch of 4 / one by one": partial(swapped, 1)}
    subject = "DreamID, SD2.1, two steps"
    yield from timed(task, "swap by steps", "dreamid", subject, partial(swapped, 4), one, task.rounds)


def speaking(task: Task) -> Found:
    """MuseTalk's network on eight frames at once against one by one."""
    from musetalk_models import model_of, write_musetalk

    from .families_unet import LipCalls, seeded

    model = model_of(write_musetalk(task.folder / "lips.safetensors"), "v15")
    latents, sound = seeded(FACES, 8, 32, 32), seeded(FACES, 50, 384, seed=1)

    def painted(step: int) -> object:
        parts = [slice(i, i + step) for i in range(0, FACES, step)]
        return [LipCalls(latents[one], sound[one]).run(model, 1) for one in parts]

    one = {"frames a second, batch of 8 / one by one": partial(painted, 1)}
    few = max(2, task.rounds // 2)
    yield from timed(task, "lip-sync", "musetalk", "MuseTalk, without VAE", partial(painted, FACES), one, few)


def importing(task: Task) -> Found:
    """What the pack adds to the start of a ComfyUI."""
    from import_cost import measure

    compiled = task.folder / "compiled"
    first, *later = (measure(compiled=compiled) for _ in range(3))
    for name, costs in {"compiled before": later, "first start after an install": [first]}.items():
        shares = sorted(cost.share for cost in costs)
        ratio = Ratio("import of the pack / import of the engine", shares[len(shares) // 2], shares[0], shares[-1])
        yield Row("import", "", name, 0, ratio.name, ratio)
