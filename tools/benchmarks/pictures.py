"""Topics that need no sampled model: detection by detector, swaps, restoration, the import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from likeness_pack.evaluation.benchmark import Ratio, time_ratios
from torch import Tensor

from .rows import Found, NotMeasured, Row, Task, rows_of

FACES = 8


def detecting(task: Task) -> Found:
    """Eight pictures at once against one by one, and each detector against MTCNN; 512 x 512."""
    from likeness_pack.adapters.detectors import packages
    from skimage import data

    picture = torch.from_numpy(data.astronaut()).float()[None] / 255
    pictures = torch.cat([picture.roll(shift, 2) for shift in range(0, 64, 8)])
    mtcnn = packages.load("mtcnn", [])
    few = max(2, task.rounds // 3)

    def one_by_one() -> object:
        return [mtcnn(pictures[i : i + 1], 0.9) for i in range(len(pictures))]

    batch = {"time, batch of 8 / one by one": lambda: mtcnn(pictures, 0.9)}
    yield from _timed(task, "detection", "MTCNN", one_by_one, batch, few)
    against = {"time, one picture / MTCNN": partial(_drawn_retinaface(), picture, 0.9)}
    subject = "RetinaFace ResNet-50, drawn weights, no face found"
    yield from _timed(task, "detection", subject, lambda: mtcnn(picture, 0.9), against, few)
    yield NotMeasured("DamoFD", "its sizes come from its file, which is no part of the project")
    yield NotMeasured("insightface's detectors", "they need files that are no part of the project")


def _drawn_retinaface() -> Any:
    """The published network with drawn weights; what depends on faces found is left out of its time."""
    from likeness_pack.adapters.detectors.retinaface.arch import RetinaFace
    from likeness_pack.adapters.detectors.retinaface.detector import RetinaFaceDetector

    torch.manual_seed(0)
    network = RetinaFace().eval()
    for name, weight in network.named_parameters():
        if name.startswith("ClassHead.") and name.endswith(".conv1x1.weight"):
            torch.nn.init.zeros_(weight)
    return RetinaFaceDetector(network)


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
        ("stand-in of small width", small, 64, task.rounds),
        ("published width, drawn weights", wide, 128, max(2, task.rounds // 3)),
    ):
        crops = torch.rand(FACES, 3, side, side, generator=chance)
        one, all_of_them = (partial(_swapped, swapper, crops, source, step) for step in (1, FACES))
        name = "faces a second, batch of 8 / one by one"
        yield from _speed(task, "swap", subject, all_of_them, {name: one}, few)
    one, all_of_them = (partial(_frames, small, step) for step in (1, FACES))
    name = "frames a second of cut, swap and paste, batch of 8 / one by one"
    yield from _speed(task, "swap", "stand-in of small width", all_of_them, {name: one}, task.rounds)


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
    yield from _speed(task, "restore", subject, partial(aligned, 4), {name: partial(aligned, 1)}, task.rounds)
    one, four = _restorations(task)
    yield from _speed(task, "restore", "RestorerID, SD1.5, two steps", four, {name: one}, max(2, task.rounds // 3))


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


def importing(task: Task) -> Found:
    """What the pack adds to the start of a ComfyUI."""
    from import_cost import measure

    compiled = task.folder / "compiled"
    first, *later = (measure(compiled=compiled) for _ in range(3))
    for name, costs in {"compiled before": later, "first start after an install": [first]}.items():
        shares = sorted(cost.share for cost in costs)
        ratio = Ratio("import of the pack / import of the engine", shares[len(shares) // 2], shares[0], shares[-1])
        yield Row("import", "", name, 0, ratio.name, ratio)


def _timed(
    task: Task, topic: str, subject: str, base: Callable[[], object], variants: dict[str, Any], rounds: int
) -> Iterator[Row]:
    for ratio in time_ratios(base, variants, torch.device(task.device), rounds):
        yield from rows_of(topic, subject, ratio.name, [ratio])


def _speed(
    task: Task, topic: str, subject: str, fast: Callable[[], object], slow: dict[str, Any], rounds: int
) -> Iterator[Row]:
    """Speed of ``fast`` against the others': their times against its own."""
    yield from _timed(task, topic, subject, fast, slow, rounds)
