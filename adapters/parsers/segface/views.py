"""The parts of a picture that SegFace's three label sets were trained on, resized as Pillow does."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ....faces.align import align_matrix
from ....faces.resample import resize_pixels, to_pixels
from ....faces.warp import compose, transform_points, warp
from ..base import View, finer

# CelebAMask-HQ's pictures are aligned like FFHQ's.
TEMPLATE = "face_restore_512"
# Helen's crops are squares of 1.2 times the larger extent of the 68 points. A detector's box reaches to the hair line,
# these points only to the brows, a good quarter below it.
HELEN_SIDE = 1.2
ABOVE_BROWS = 0.28
# LaPa's pictures show a face with its surroundings.
LAPA_SIDE = 3.0
LARGEST_MAP = 1536

Region = tuple[int, int, int, int]


def aligned(image: Tensor, landmarks5: Tensor, margin: float, size: int) -> View:
    """The face turned upright (CelebAMask-HQ).

    Args:
        image: (H, W, 3), 0..1.
        landmarks5: (5, 2) pixels.
        margin: share of the crop's side that is added on every side.
        size: side of the view.
    """
    matrix = align_matrix(landmarks5.double()[None], TEMPLATE, size)[0]
    factor = 1 / (1 + 2 * margin)
    middle = (size - 1) / 2 * (1 - factor)
    matrix = compose(torch.tensor([[factor, 0, middle], [0, factor, middle]], dtype=torch.float64), matrix)
    detail = _detail(1 / float(torch.linalg.det(matrix[:, :2])) ** 0.5, size)
    # Bilinear sampling would pass over pixels of a larger face, so it is cut finer and then averaged.
    crop = warp(image.movedim(-1, 0)[None], finer(matrix, detail)[None], detail * size, "border")[0]
    pixels = resize_pixels(to_pixels(crop), size, size)
    return View(pixels, matrix, transform_points(landmarks5.double(), matrix), detail)


def squashed(image: Tensor, region: Region, landmarks5: Tensor, size: int) -> View:
    """A rectangle of the picture stretched to a square, as the authors' loaders do it.

    Args:
        image: (H, W, 3), 0..1.
        region: ``x1 y1 x2 y2`` in whole pixels inside the picture.
        landmarks5: (5, 2) pixels.
        size: side of the view.
    """
    x1, y1, x2, y2 = region
    pixels = resize_pixels(to_pixels(image[y1:y2, x1:x2]).movedim(-1, 0), size, size)
    scale = torch.tensor([size / (x2 - x1), size / (y2 - y1)], dtype=torch.float64)
    corner = torch.tensor([x1, y1], dtype=torch.float64)
    shift = (0.5 - corner) * scale - 0.5
    matrix = torch.cat([torch.diag(scale), shift[:, None]], dim=1)
    return View(pixels, matrix, (landmarks5.double() - corner) * scale, _detail(1 / float(scale.min()), size))


def helen_region(box: Tensor, height: int, width: int) -> Region:
    """Helen's crop about the face with this box (4,), cut to the picture."""
    x1, y1, x2, y2 = box.tolist()
    y1 += ABOVE_BROWS * (y2 - y1)
    side = int(HELEN_SIDE * (max(x2 - x1, y2 - y1) + 1))
    return _square(int(x1 + (x2 - x1 + 1) / 2), int(y1 + (y2 - y1 + 1) / 2), side, height, width)


def lapa_region(box: Tensor, height: int, width: int) -> Region:
    """A square of three times the larger side of the box (4,), cut to the picture: all of a portrait."""
    x1, y1, x2, y2 = box.tolist()
    side = math.ceil(LAPA_SIDE * max(x2 - x1, y2 - y1))
    return _square(int((x1 + x2) / 2), int((y1 + y2) / 2), side, height, width)


def _square(x: int, y: int, side: int, height: int, width: int) -> Region:
    """A square about a point, cut to the picture; one pixel at least."""
    half = max(side, 2) // 2
    x1, y1 = min(max(0, x - half), width - 1), min(max(0, y - half), height - 1)
    return (x1, y1, max(x1 + 1, min(width, x + half)), max(y1 + 1, min(height, y + half)))


def _detail(pixels: float, size: int) -> int:
    """Whole number of picture pixels along a side of a view's pixel, as far as memory allows."""
    return max(1, min(math.ceil(pixels - 1e-6), LARGEST_MAP // size))
