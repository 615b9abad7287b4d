"""A sheet of pictures that says under every row how far its faces are from a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.identity import Identity
from ..faces.images import as_rgb
from .similarity import similarity_matrix

CAPTION_HEIGHT = 22
GAP = 4


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One row of a sheet.

    Attributes:
        name: what the pictures are.
        images: (N, H, W, 3), 0..1.
        identity: of their faces, or None for the reference itself.
    """

    name: str
    images: Tensor
    identity: Identity | None = None


def mean_distance(reference: Identity, found: Identity) -> float:
    """Mean distance of all faces to the reference: 1 - cosine, or the distance itself for encoders that use one."""
    matrix = similarity_matrix(found, reference)
    mean = float(matrix.values.nanmean())
    return 1 - mean if matrix.metric == "cosine" else mean


def caption(row: SheetRow, reference: Identity) -> str:
    """The text under a row."""
    if row.identity is None:
        return row.name
    distance = mean_distance(reference, row.identity)
    return f"{row.name}: identity distance to the reference {distance:.2f}"


def identity_sheet(reference: Identity, rows: Sequence[SheetRow], side: int = 192) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) of all rows with their captions, and the captions as text.

    Args:
        reference: the person.
        rows: from top to bottom.
        side: height of each picture on the sheet, in pixels.
    """
    captions = [caption(row, reference) for row in rows]
    strips = [_strip(row.images, side) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    parts = []
    for strip, text in zip(strips, captions, strict=True):
        page = torch.ones(side + CAPTION_HEIGHT + GAP, width, 3)
        page[:side, : strip.shape[1]] = strip
        page[side : side + CAPTION_HEIGHT] = written(text, width)
        parts.append(page)
    return torch.cat(parts)[None], "\n".join(captions)


def written(text: str, width: int) -> Tensor:
    """A line of text, (22, width, 3), dark on white."""
    import numpy as np
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, CAPTION_HEIGHT), (255, 255, 255))
    ImageDraw.Draw(image).text((4, 4), text, fill=(30, 30, 34))
    return torch.from_numpy(np.asarray(image).astype("float32")) / 255


def _strip(images: Tensor, side: int) -> Tensor:
    planes = as_rgb(images, "row of the sheet").detach().float().cpu().movedim(-1, 1)
    width = max(1, round(side * planes.shape[3] / planes.shape[2]))
    large = functional.interpolate(planes, size=(side, width), mode="bicubic", antialias=True).clamp(0, 1)
    return torch.cat(list(large.movedim(1, -1)), dim=1)
