"""Faces given by the user: boxes, points or a mask instead of a detector (anime, profiles, very small faces)."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .components import label
from .errors import BadLandmarks, BadMask, NoFaceFound
from .landmarks import check_landmarks5, landmarks5_from_boxes
from .typed import typed
from .types import FaceBatch, Faces

SMALLEST_BLOB = 8
# A detector's box around given points: eyes and mouth 0.38 of the height apart, their middle at 0.58 of it, as in
# `landmarks5_from_boxes`; the width follows from the height, because a profile's eyes say nothing about it.
_EYE_MOUTH_OF_HEIGHT = 0.38
_MIDDLE_OF_HEIGHT = 0.58
_WIDTH_OF_HEIGHT = 0.8

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SEPARATORS = re.compile(r"[\s,()]*")
_FORMS = {4: "x1,y1,x2,y2; ...", 10: "x,y x,y x,y x,y x,y; ..."}


def faces_from_user(
    image_size: tuple[int, int],
    count: int = 1,
    boxes_text: str = "",
    points_text: str = "",
    mask: Tensor | None = None,
) -> FaceBatch:
    """Faces from what the user wrote or painted; every picture gets the same, unless the mask is a batch.

    Args:
        image_size: (H, W) of the pictures.
        count: number of pictures B.
        boxes_text: ``x1,y1,x2,y2; ...`` in pixels, or a JSON list of such lists.
        points_text: five points for each face in the order of landmarks5, ``x,y x,y x,y x,y x,y; ...`` or JSON
            (``[[[x, y], ...], ...]``). Without boxes, boxes are drawn around the points.
        mask: (H', W'), (1, H', W') or (B, H', W') in any resolution; one face for each connected blob above 0.5,
            from left to right. Read only where no text is given.

    Returns:
        Faces with score 1; points that were not given are approximated and a note says so.

    Raises:
        BadLandmarks: text that is not boxes or points, boxes without area or outside, points in another order.
        BadMask: wrong shape or count.
        NoFaceFound: nothing was given, or a mask without a blob.
    """
    if boxes_text.strip() or points_text.strip():
        faces, notes = _from_text(image_size, boxes_text, points_text)
        notes += () if mask is None else ("mask not used: boxes or points are given",)
        return FaceBatch((faces,) * count, image_size, "user", notes=notes)
    if mask is not None:
        return _from_mask(image_size, count, mask)
    raise NoFaceFound(
        "faces given by hand",
        expected="boxes, points or a mask",
        found="none of them",
        cure="write at least one box as x1,y1,x2,y2 or connect a mask",
    )


def boxes_around(landmarks5: Tensor) -> Tensor:
    """Boxes (F, 4) of faces with the given landmarks5 (F, 5, 2), about as a detector would draw them."""
    eyes, mouth = landmarks5[:, :2].mean(dim=1), landmarks5[:, 3:].mean(dim=1)
    height = (mouth - eyes).norm(dim=1) / _EYE_MOUTH_OF_HEIGHT
    size = torch.stack([height * _WIDTH_OF_HEIGHT, height], dim=1)
    low = (eyes + mouth) / 2 - size * torch.tensor([0.5, _MIDDLE_OF_HEIGHT])
    return torch.cat([low, low + size], dim=1)


def _from_text(image_size: tuple[int, int], boxes_text: str, points_text: str) -> tuple[Faces, tuple[str, ...]]:
    if not points_text.strip():
        boxes = _parsed_boxes(boxes_text, image_size)
        note = f"landmarks of {len(boxes)} given boxes are approximated from an upright face"
        return Faces(boxes, landmarks5_from_boxes(boxes), torch.ones(len(boxes))), (note,)
    points = check_landmarks5(_rows(points_text, 10, "points").view(-1, 5, 2), "given points")
    if not boxes_text.strip():
        note = f"boxes of {len(points)} faces are drawn around the given points"
        return Faces(boxes_around(points), points, torch.ones(len(points))), (note,)
    boxes = _parsed_boxes(boxes_text, image_size)
    if len(boxes) != len(points):
        raise BadLandmarks(
            "given points",
            expected=f"five points for each of {len(boxes)} boxes",
            found=f"{len(points)} faces",
            cure="separate faces by semicolons, in the same order as the boxes",
        )
    return Faces(boxes, points, torch.ones(len(boxes))), ()


def _rows(text: str, width: int, what: str) -> Tensor:
    """(F, width) numbers out of a JSON list or of ``a,b,...; a,b,...``."""
    text = typed(text)
    rows = _json_rows(text, width) if text.lstrip().startswith("[") else _plain_rows(text)
    complete = all(len(row) == width and all(math.isfinite(value) for value in row) for row in rows)
    if not rows or not complete:
        raise BadLandmarks(
            f"given {what}",
            expected=f"{width} finite numbers for each face",
            found=repr(text.strip()[:80]),
            cure=f"write {_FORMS[width]} or a JSON list of lists",
        )
    return torch.tensor(rows, dtype=torch.float32)


def _plain_rows(text: str) -> list[list[float]]:
    """Rows between semicolons; none where anything but numbers and separators stands there."""
    parts = [part for part in text.split(";") if part.strip()]
    if any(_SEPARATORS.fullmatch(_NUMBER.sub("", part)) is None for part in parts):
        return []
    return [[float(value) for value in _NUMBER.findall(part)] for part in parts]


def _json_rows(text: str, width: int) -> list[list[float]]:
    """Rows of a JSON list of faces, or of a single face; none where it is neither."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    single = _flat(value)
    if single is None:
        return []
    # Five pairs are one face of points; without this they would be five rows of two numbers.
    if len(single) == width and all(not isinstance(item, list) or len(item) == 2 for item in value):
        return [single]
    return [_flat(item) or [] for item in value]


def _flat(value: Any) -> list[float] | None:
    """All numbers of a nested list in order, or None where it holds something else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [float(value)]
    if not isinstance(value, list):
        return None
    numbers: list[float] = []
    for item in value:
        inner = _flat(item)
        if inner is None:
            return None
        numbers.extend(inner)
    return numbers


def _parsed_boxes(text: str, image_size: tuple[int, int]) -> Tensor:
    height, width = image_size
    boxes = _rows(text, 4, "boxes")
    for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
        if left < right and top < bottom and right > 0 and bottom > 0 and left < width and top < height:
            continue
        raise BadLandmarks(
            f"given box {number}",
            expected=f"x1 < x2 and y1 < y2, at least partly inside {width}x{height} pixels",
            found=f"{left:g},{top:g},{right:g},{bottom:g}",
            cure="write the top-left corner first, in pixels of the picture",
        )
    return boxes


def _from_mask(image_size: tuple[int, int], count: int, mask: Tensor) -> FaceBatch:
    masks = mask[None] if mask.ndim == 2 else mask
    if masks.ndim != 3 or masks.shape[0] not in (1, count) or 0 in masks.shape:
        raise BadMask(
            "face mask",
            expected=f"(H, W), (1, H, W) or ({count}, H, W)",
            found=str(tuple(mask.shape)),
            cure="give one mask for all pictures or one for each",
        )
    notes = ["landmarks of painted faces are approximated from an upright face"]
    images = []
    for number, one in enumerate(masks):
        boxes, ignored = _blob_boxes(one, image_size)
        if ignored:
            notes.append(f"mask {number}: {ignored} blobs smaller than {SMALLEST_BLOB} pixels are ignored")
        images.append(Faces(boxes, landmarks5_from_boxes(boxes), torch.ones(len(boxes))))
    empty = [str(number) for number, faces in enumerate(images) if not len(faces)]
    if empty:
        raise NoFaceFound(
            f"face mask {', '.join(empty)} (counted from 0)",
            expected=f"a painted blob of at least {SMALLEST_BLOB} pixels each way",
            found="none",
            cure="paint over each face",
        )
    return FaceBatch(tuple(images) * (count // len(images)), image_size, "user", notes=tuple(notes))


def _blob_boxes(mask: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, int]:
    """Boxes (F, 4) of the blobs, from left to right, in picture pixels; and the number of those too small."""
    labels, count = label((mask.detach().float().cpu() > 0.5).numpy(), diagonal=True)
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns] - 1
    low, high = np.full((count, 2), np.inf), np.zeros((count, 2))
    for axis, places in enumerate((columns, rows)):
        np.minimum.at(low[:, axis], numbers, places)
        np.maximum.at(high[:, axis], numbers, places + 1)
    factors = np.array([image_size[1] / mask.shape[1], image_size[0] / mask.shape[0]])
    scaled = torch.from_numpy(np.concatenate([low * factors, high * factors], axis=1)).float()
    large = ((scaled[:, 2:] - scaled[:, :2]) >= SMALLEST_BLOB).all(dim=1)
    kept = scaled[large]
    return kept[torch.argsort(kept[:, 0], stable=True)], int((~large).sum())
