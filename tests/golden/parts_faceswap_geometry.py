"""Parity of alignment, warps, landmarks and identity arithmetic with insightface and facefusion."""

from __future__ import annotations

import re

import numpy as np
import torch
from harness import Golden, part
from likeness_pack.faces import boxes as face_boxes
from likeness_pack.faces import embeddings as arithmetic
from likeness_pack.faces.align import align_matrix, box_matrix, centre_matrix, rotation, transform_points, warp
from likeness_pack.faces.landmarks import face_angle, landmarks5_from_68, scale_about_nose
from likeness_pack.faces.select import filter_age, filter_gender, order_faces
from likeness_pack.faces.types import Faces
from torch import Tensor

# Records of robust estimators that throw landmarks away: described in the specification, not reproduced.
MATRIX_RECORDS = ("reactor_", "restore_lmeds_", "kps_")
WARP_RECORDS = ("restore_512_", "kps_")
WARP_TEMPLATES = {"arcface128": "arcface_128", "ffhq": "ffhq_512"}
ROTATED_FRAME = (320, 240)
CHECKED_ALREADY = ("landmark_68", "landmark_5", "bounding_box", "face_angle_by_15deg", "kps_rolled")
ORDER_NAMES = {
    "large-small": "largest",
    "small-large": "smallest",
    "best-worst": "best score",
    "worst-best": "worst score",
}


def landmarks(golden: Golden, kind: str) -> Tensor:
    """The stored landmarks5 (1, 5, 2) of one face."""
    return golden.tensors[f"kps_{kind}"][None]


@part("faceswap_matrices")
def matrices(golden: Golden) -> None:
    """Every insightface and facefusion matrix, within a thousandth of a pixel of the crop at each landmark.

    Single entries are no measure: OpenCV stops its fit early and insightface fits in float32, which trades scale for
    translation.
    """
    for name in golden.tensors:
        if name.startswith(MATRIX_RECORDS):
            continue
        owner, rest = name.split("_", 1)
        template, size, kind = rest.rsplit("_", 2) if owner == "facefusion" else ("arcface", *rest.split("_"))
        points, expected = landmarks(golden, kind), golden.tensors[name][None]
        got = align_matrix(points, template, int(size))
        assert got.shape == expected.shape, f"{name}: {tuple(got.shape)}"
        away = transform_points(points.double(), got.double()) - transform_points(points.double(), expected.double())
        assert away.abs().max() <= 1e-3, f"{name}: {away.abs().max()} pixels"


def scene(golden: Golden, name: str, height: int, width: int) -> Tensor:
    """The picture (1, 3, H, W) of levels 0..255 that the file's image rule names."""
    numbers = golden.input(f"img:{name}", (9,)).double().numpy()
    fx, fy = 0.15 + 0.05 * np.tanh(numbers[0:3]), 0.12 + 0.05 * np.tanh(numbers[3:6])
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.floor(127.5 * (1 + np.sin(fx[c] * x + fy[c] * y + numbers[6 + c])) + 0.5) for c in range(3)]
    return torch.from_numpy(np.stack(waves)).float()[None]


def numbers_in(text: str) -> list[float]:
    """Every number of a description."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def levels_agree(golden: Golden, name: str, crop: Tensor) -> None:
    """At least 99.5 % of the sampled levels within 2; OpenCV rounds positions to 1/32 pixel."""
    expected = golden.tensors[name]
    step = crop.shape[-1] // expected.shape[0]
    got = crop.movedim(0, -1)[::step, ::step].round().clamp(0, 255)
    assert got.shape == expected.shape, f"{name}: {tuple(got.shape)} != {tuple(expected.shape)}"
    share = ((got - expected).abs() <= 2).double().mean().item()
    assert share >= 0.995, f"{name}: only {share:.2%} of levels within 2"


@part("faceswap_warps")
def warps(golden: Golden) -> None:
    """Every crop but the restorer's, sampled as in the file."""
    recipe = golden.metadata["inputs"]
    picture, height, width = re.match(r"image (?:(\w+) )?(\d+)x(\d+)", recipe["scene"]).groups()  # type: ignore[union-attr]
    image = scene(golden, picture or "scene", int(height), int(width))
    for name in golden.tensors:
        if name.startswith(WARP_RECORDS):
            continue
        if name == "insightface_transform_M":
            golden.check(name, centre(recipe["transform"])[0])
            continue
        matrix, size, padding = warp_recipe(golden, name)
        levels_agree(golden, name, warp(image, matrix, size, padding)[0])


def centre(recipe: str) -> tuple[Tensor, int]:
    """Matrix and size of ``center (x,y), output S, scale F, rotation D``."""
    x, y, size, scale, degrees = numbers_in(recipe)
    return centre_matrix((x, y), int(size), scale, degrees), int(size)


def warp_recipe(golden: Golden, name: str) -> tuple[Tensor, int, str]:
    """Matrix (1, 2, 3), size and padding of one stored crop."""
    recipe = golden.metadata["inputs"]
    owner, what, *rest = name.split("_")
    if what == "transform":
        matrix, size = centre(recipe["transform"])
        return matrix[None], size, "zeros"
    if what == "bbox":
        box = torch.tensor([recipe["bbox"]], dtype=torch.float64)
        return box_matrix(box, int(rest[0])), int(rest[0]), "zeros"
    if what == "translation":
        x, y, scale = numbers_in(recipe["translation"])
        return torch.tensor([[[scale, 0, x], [0, scale, y]]]).double(), int(rest[0]), "zeros"
    if owner == "insightface":
        return align_matrix(landmarks(golden, rest[0]), "arcface", int(what)), int(what), "zeros"
    size, kind = int(rest[0]), rest[1]
    return align_matrix(landmarks(golden, kind), WARP_TEMPLATES[what], size), size, "border"


@part("faceswap_landmarks")
def landmark_geometry(golden: Golden) -> None:
    """68 to 5 points, roll, scaling, rotated frames, overlap and suppression."""
    stored, recipe = golden.tensors, golden.metadata["inputs"]
    points = stored["landmark_68"]
    golden.check("landmark_5", landmarks5_from_68(points))
    golden.check("bounding_box", face_boxes.box_of_points(points))
    centre_x, centre_y = numbers_in(recipe["angles"])[:2]
    count = len(stored["face_angle_by_15deg"])
    rolled = [face_angle(turned(points, (centre_x, centre_y), 360 / count * step)) for step in range(count)]
    golden.check("face_angle_by_15deg", torch.tensor(rolled))
    boxes, scores = torch.tensor(recipe["boxes"]), torch.tensor(recipe["scores"])
    likely = torch.nonzero(scores > recipe["score_threshold"])[:, 0]
    for name, expected in stored.items():
        kind, *_, value = name.split("_")
        if name.startswith("kps_scaled_"):
            golden.check(name, scale_about_nose(stored["kps_rolled"], float(value)))
        elif kind == "iou":
            golden.check(name, face_boxes.iou(boxes, boxes)[int(name.split("_")[1]), int(value)])
        elif kind == "nms":
            kept = likely[face_boxes.nms(boxes[likely], scores[likely], float(value))] + 1
            golden.check(name, torch.nn.functional.pad(kept, (0, len(expected) - len(kept))))
        elif kind == "rotation":
            matrix, size = rotation(float(value), *ROTATED_FRAME)
            golden.check(name, torch.tensor(size) if "size" in name else matrix)
        else:
            assert name in CHECKED_ALREADY, f"{name} is not reproduced"


def turned(points: Tensor, centre_of: tuple[float, float], degrees: float) -> Tensor:
    """Points turned about a centre, x towards y."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    linear = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    middle = torch.tensor(centre_of, dtype=torch.float64)
    return transform_points(points.double() - middle, torch.cat([linear, middle[:, None]], dim=1))


@part("faceswap_identity")
def identity(golden: Golden) -> None:
    """Orders, filters, distances, averages and balance of the five faces that the file describes."""
    e = described_embeddings(golden)
    golden.check("distance", arithmetic.cosine_distance(e[:5], e[:5]))
    mean, mean_of_units = arithmetic.average(e[:3])
    golden.check("average_embedding", mean)
    golden.check("average_embedding_norm", mean_of_units)
    faces, genders, ages = described_faces(golden.metadata["inputs"]["faces"])
    for name in golden.tensors:
        if name.startswith("order_"):
            order = name.removeprefix("order_")
            golden.check(name, torch.tensor(order_faces(faces, ORDER_NAMES.get(order, order))))
        elif name.startswith("filter_age_"):
            start, stop = name.removeprefix("filter_age_").split("_")
            golden.check(name, torch.tensor(filter_age(ages, range(int(start), int(stop))) or [0]))
        elif name.startswith("filter_"):
            golden.check(name, torch.tensor(filter_gender(genders, name.removeprefix("filter_")) or [0]))
        elif name.startswith("match_first_"):
            golden.check(name, arithmetic.same_face(e[:5], e[:1], float(name.rsplit("_", 1)[1]))[:, 0])
        elif name.startswith("balance_"):
            golden.check(name, balanced(e[:1], e[1:2], *name.split("_")[1:]))


def described_embeddings(golden: Golden) -> Tensor:
    """Read ``E = input_for(name,(N,D))*k; E[i]=a*E[j]+b*E[i]; ...``."""
    first, *mixed = golden.metadata["inputs"]["embeddings"].split(";")
    name, rows, width, factor = re.search(r"input_for\('(\w+)',\((\d+),(\d+)\)\)\*([\d.]+)", first).groups()  # type: ignore[union-attr]
    e = golden.input(name, (int(rows), int(width))) * float(factor)
    for assignment in mixed:
        target, terms = assignment.split("=")
        parts = [re.fullmatch(r"(?:([\d.]+)\*)?E\[(\d+)\]", term.strip()).groups() for term in terms.split("+")]  # type: ignore[union-attr]
        e[int(numbers_in(target)[0])] = sum(float(share or 1) * e[int(row)] for share, row in parts)
    return e


def balanced(source: Tensor, target: Tensor, network: str, weight: str) -> Tensor:
    """Balance as the network is fed: unit vectors, or raw ones for ghost."""
    if network != "ghost":
        source, target = torch.nn.functional.normalize(source), torch.nn.functional.normalize(target)
    return arithmetic.balance(source, target, float(weight))


def described_faces(text: str) -> tuple[Faces, list[str], list[range]]:
    """Read boxes, scores, genders and age ranges from the file's description."""
    boxes = torch.tensor(
        [[float(value) for value in box.split(",")] for box in re.findall(r"\[([\d.]+(?:,[\d.]+){3})\]", text)]
    )
    scores = torch.tensor(numbers_in(re.sub(r"(?<!\d)\.", "0.", re.search(r"scores ([^;]*)", text).group(1))))  # type: ignore[union-attr]
    letters = re.search(r"gender ([fm,]+)", text).group(1).split(",")  # type: ignore[union-attr]
    ages = [range(int(low), int(high)) for low, high in re.findall(r"range\((\d+),(\d+)\)", text)]
    return (
        Faces(boxes, torch.zeros(len(boxes), 5, 2), scores),
        [{"f": "female", "m": "male"}[letter] for letter in letters],
        ages,
    )
