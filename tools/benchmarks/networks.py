"""Topics of networks that look at pictures before sampling: detection by detector, encoders, the parser.

The networks have their published sizes and drawn weights, from the key lists of the published files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from likeness_pack.evaluation.benchmark import time_ratios
from torch import Tensor

from .rows import Found, NotMeasured, Row, Task, rows_of

FACES = 8
# Encoders by the published file that they are built after.
ENCODERS = {"transface": "transface_s", "topofr": "topofr_r50", "face_representation": "face_representation_flr_r50"}
DETECTORS = {"retinaface": ("fact_retinaface", "RetinaFace ResNet-50"), "damofd": ("damofd_05g_kps", "DamoFD 0.5G")}
PARSER = "segface_celeb_mobilenet_512"
# No face may be found in drawn weights: how many there are would decide the time.
SILENT = ("bbox_head.stride_cls.", "ClassHead.")


def detecting(task: Task) -> Found:
    """Each detector against MTCNN at 512 x 512, and several pictures at once against one by one."""
    from likeness_pack.adapters.detectors import packages
    from skimage import data

    picture = torch.from_numpy(data.astronaut()).float()[None] / 255
    pictures = torch.cat([picture.roll(shift, 2) for shift in range(0, 64, 8)])
    mtcnn = packages.load("mtcnn", [])
    few = max(2, task.rounds // 3)
    yield from _batched(task, "detection", "", "MTCNN", mtcnn, pictures, few)
    for family, (stem, title) in DETECTORS.items():
        detector = drawn(task.folder, stem)
        subject = f"{title}, drawn weights, no face found"
        against = {"time, one picture / MTCNN": partial(detector, picture, 0.9)}
        yield from timed(task, "detection", family, subject, partial(mtcnn, picture, 0.9), against, few)
        yield from _batched(task, "detection", family, subject, detector, pictures[:4, ::2, ::2], few)
    yield NotMeasured("insightface's detectors", "their networks are ONNX files that are no part of the project")


def _batched(
    task: Task, topic: str, family: str, subject: str, detector: Any, pictures: Tensor, rounds: int
) -> Iterator[Row]:
    one_by_one = partial(_each, lambda picture: detector(picture, 0.9), pictures)
    together = {f"time, batch of {len(pictures)} / one by one": partial(detector, pictures, 0.9)}
    yield from timed(task, topic, family, subject, one_by_one, together, rounds)


def encoding(task: Task) -> Found:
    """Eight faces of a picture at once against one by one, for each encoder of persons."""
    from likeness_pack.faces.templates import template_points

    images = torch.rand(1, 160, 160, 3, generator=torch.Generator().manual_seed(1))
    points = (template_points("arcface", 112) + 24).expand(FACES, -1, -1)
    boxes = torch.tensor([24.0, 24.0, 136.0, 136.0]).expand(FACES, -1)
    name = f"faces a second, batch of {FACES} / one by one"
    for family, stem in ENCODERS.items():
        encoder = drawn(task.folder, stem)

        def encoded(step: int, encoder: Any = encoder) -> object:
            parts = [slice(i, i + step) for i in range(0, FACES, step)]
            return [encoder.encode_faces(images, [0] * step, boxes[one], points[one], None) for one in parts]

        subject, few = f"{encoder.title}, drawn weights", max(2, task.rounds // 3)
        one, together = {name: partial(encoded, 1)}, partial(encoded, FACES)
        yield from timed(task, "encode", family, subject, together, one, few)


def parsing(task: Task) -> Found:
    """Four faces at once against one by one."""
    parser = drawn(task.folder, PARSER)
    pictures = torch.rand(4, 3, parser.resolution, parser.resolution, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def parsed(step: int) -> object:
        return [parser.network(pictures[i : i + step]) for i in range(0, len(pictures), step)]

    one = {"faces a second, batch of 4 / one by one": partial(parsed, 1)}
    subject, few = "SegFace MobileNet, drawn weights", max(2, task.rounds // 3)
    yield from timed(task, "parse", "segface", subject, partial(parsed, 4), one, few)


def drawn(folder: Path, stem: str) -> Any:
    """The network of a published file's layout, written with drawn weights and loaded as any file."""
    from key_lists import PUBLISHED, shapes_of
    from likeness_pack.adapters import registry
    from likeness_pack.tools.standins.fill import filled_all
    from safetensors.torch import save_file

    path = folder / f"{stem}.safetensors"
    (row,) = (row for row in PUBLISHED if row.stem == stem)
    shapes = {name: tuple(shape) for name, shape in shapes_of(stem, folder).items()}
    tensors = filled_all(shapes, torch.float32)
    for name, tensor in tensors.items():
        if name.startswith(SILENT):
            tensor.zero_()
    save_file(tensors, path)
    variant = row.variants[0] if len(row.variants) > 1 else None
    return registry.load(path, variant=variant or registry.AUTO)


def _each(call: Callable[[Tensor], object], pictures: Tensor) -> object:
    return [call(pictures[i : i + 1]) for i in range(len(pictures))]


def timed(
    task: Task,
    topic: str,
    family: str,
    subject: str,
    base: Callable[[], object],
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
) -> Iterator[Row]:
    """Times of variants against ``base``; given a fast ``base``, the ratios are its speed against theirs."""
    for ratio in time_ratios(base, variants, torch.device(task.device), rounds):
        yield from rows_of(topic, subject, ratio.name, [ratio], family)
