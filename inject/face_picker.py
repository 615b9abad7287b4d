"""What the canvas needs to let a user click on faces: small pictures in the host's temporary folder, and the boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..faces.select import order_faces
from ..faces.types import FaceBatch, Faces
from .shown_pictures import shown_picture

PICTURES = 8
LONGEST_SIDE = 768
NAME = "likeness_faces"


def face_choices(
    images: Tensor, faces: FaceBatch, chosen: FaceBatch, order: str, by_reference: bool
) -> list[dict[str, Any]]:
    """One entry for each of the first `PICTURES` pictures, for the node's ``ui`` output.

    Args:
        images: (B, H, W, 3), 0..1.
        faces: all faces of these B pictures.
        chosen: those that were kept.
        order: one of `faces.select.ORDERS`; a face's place in it is its number.
        by_reference: whether a person chose, so that numbers play no part.

    Returns:
        Dictionaries of ``picture`` (filename, subfolder, type, as the host's view route takes them), ``size`` (width,
        height in pixels), ``order``, ``by_reference``, and ``faces`` in that order: ``box`` (x1, y1, x2, y2 as
        fractions of the picture, inside it), ``score`` and ``chosen``.
    """
    height, width = faces.image_size
    entries = []
    for number in range(min(PICTURES, len(faces))):
        found = faces.images[number].take(order_faces(faces.images[number], order))
        entries.append(
            {
                "picture": _save(images[number]),
                "size": [width, height],
                "order": order,
                "by_reference": by_reference,
                "faces": _faces(found, chosen.images[number], width, height),
            }
        )
    return entries


def _faces(found: Faces, chosen: Faces, width: int, height: int) -> list[dict[str, Any]]:
    boxes = (found.boxes.cpu() / torch.tensor([width, height, width, height])).clamp(0, 1)
    kept = [bool((chosen.boxes == box).all(1).any()) for box in found.boxes]
    return [
        {"box": [round(value, 5) for value in box], "score": round(score, 4), "chosen": is_kept}
        for box, score, is_kept in zip(boxes.tolist(), found.scores.tolist(), kept, strict=True)
    ]


def _save(image: Tensor) -> dict[str, str]:
    """Write one picture (H, W, 3) as JPEG; what the host's view route takes."""
    from PIL import Image

    pixels = np.asarray((image.cpu() * 255).round().clamp(0, 255), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return shown_picture(picture, NAME, ".jpg", quality=85)
