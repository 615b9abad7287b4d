"""A picture of what was found: boxes, points, numbers, scores and sizes drawn onto a copy of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .types import FaceBatch, Faces

Colour = tuple[float, float, float]

# Five by seven pixels a sign, a row a number, the leftmost pixel in the highest of five bits.
_SIGNS: dict[str, tuple[int, ...]] = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "#": (10, 10, 31, 10, 31, 10, 10),
    ".": (0, 0, 0, 0, 0, 12, 12),
    "x": (0, 0, 17, 10, 4, 10, 17),
    "-": (0, 0, 0, 31, 0, 0, 0),
    " ": (0, 0, 0, 0, 0, 0, 0),
}
_COLOURS: tuple[Colour, ...] = (
    (0.10, 0.80, 0.25),
    (0.95, 0.55, 0.10),
    (0.20, 0.55, 1.00),
    (0.90, 0.25, 0.70),
    (0.95, 0.85, 0.15),
    (0.20, 0.85, 0.85),
)
_POINT_COLOURS: tuple[Colour, ...] = ((1, 0, 0), (0, 1, 0), (0.2, 0.4, 1), (1, 1, 0), (1, 0, 1))


def draw_faces(images: Tensor, batch: FaceBatch, numbers: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Return a copy (B, H, W, 3) of the pictures with every face drawn.

    A face's label reads number, score in percent and size in pixels, such as ``#0 97 212x260``; numbers are the
    indices that a later choice by number takes.

    Args:
        images: (B, H, W, 3), 0..1.
        batch: the faces of these B pictures.
        numbers: the number of each face of each picture, such as whose it is; by default its index.
    """
    result = images.clone()
    told = [range(count) for count in batch.counts] if numbers is None else numbers
    for image, faces, labels in zip(result, batch.images, told, strict=True):
        _draw_picture(image, faces, labels)
    return result


def _draw_picture(image: Tensor, faces: Faces, labels: Sequence[int]) -> None:
    unit = max(1, round(min(image.shape[:2]) / 320))
    for number, shown in enumerate(labels):
        colour = _COLOURS[shown % len(_COLOURS)]
        x1, y1, x2, y2 = (round(value) for value in faces.boxes[number].tolist())
        _frame(image, (x1, y1, x2, y2), unit, colour)
        for point, point_colour in zip(faces.landmarks5[number].tolist(), _POINT_COLOURS, strict=True):
            _fill(image, _around(point, 2 * unit), point_colour)
        text = f"#{shown} {round(100 * float(faces.scores[number]))} {x2 - x1}x{y2 - y1}"
        _label(image, text, (x1, y1), 2 * unit, colour)


def _around(point: Sequence[float], radius: int) -> tuple[int, int, int, int]:
    x, y = round(point[0]), round(point[1])
    return (x - radius, y - radius, x + radius + 1, y + radius + 1)


def _fill(image: Tensor, box: tuple[int, int, int, int], colour: Colour) -> None:
    """Fill a box, cut to the picture, in place."""
    x1, y1, x2, y2 = (max(0, value) for value in box)
    image[y1:y2, x1:x2] = image.new_tensor(colour)


def _frame(image: Tensor, box: tuple[int, int, int, int], line: int, colour: Colour) -> None:
    x1, y1, x2, y2 = box
    _fill(image, (x1, y1, x2, y1 + line), colour)
    _fill(image, (x1, y2 - line, x2, y2), colour)
    _fill(image, (x1, y1, x1 + line, y2), colour)
    _fill(image, (x2 - line, y1, x2, y2), colour)


def text_bitmap(text: str) -> Tensor:
    """Return the text (7, 6 N - 1) bool, of digits, blank and ``# . x -``; other signs are blanks."""
    signs = torch.tensor([_SIGNS.get(char, _SIGNS[" "]) for char in text])
    bits = signs[:, :, None] >> torch.tensor([4, 3, 2, 1, 0]) & 1
    spaced = torch.nn.functional.pad(bits, (0, 1)).transpose(0, 1).flatten(1)
    return spaced[:, :-1].bool()


def _label(image: Tensor, text: str, corner: tuple[int, int], scale: int, colour: Colour) -> None:
    """Write black text on a plate of the face's colour above the corner, moved inside the picture, in place."""
    bitmap = text_bitmap(text).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    height, width = bitmap.shape[0] + 2 * scale, bitmap.shape[1] + 2 * scale
    x = max(0, min(corner[0], image.shape[1] - width))
    y = max(0, min(corner[1] - height, image.shape[0] - height))
    _fill(image, (x, y, x + width, y + height), colour)
    plate = image[y + scale : y + scale + bitmap.shape[0], x + scale : x + scale + bitmap.shape[1]]
    plate[bitmap[: plate.shape[0], : plate.shape[1]].to(image.device)] = 0
