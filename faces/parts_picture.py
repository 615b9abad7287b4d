"""Pictures of parsed faces: one colour for each part, alone or over the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .parts import ParsedFaces, label_maps

# Colours of the viewer in SegFace's repository, which has them in the order of CelebAMask-HQ's channels.
COLOURS: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 0),
    "neck": (128, 64, 0),
    "skin": (200, 80, 80),
    "cloth": (0, 192, 0),
    "left ear": (64, 0, 0),
    "right ear": (192, 0, 0),
    "left brow": (0, 128, 128),
    "right brow": (128, 128, 128),
    "left eye": (0, 0, 128),
    "right eye": (128, 0, 128),
    "nose": (0, 128, 0),
    "inner mouth": (64, 128, 0),
    "lower lip": (64, 0, 128),
    "upper lip": (192, 128, 0),
    "hair": (192, 0, 128),
    "glasses": (128, 128, 0),
    "hat": (64, 128, 128),
    "earring": (192, 128, 128),
    "necklace": (0, 64, 0),
}
_OVER = 0.5


def draw_parts(images: Tensor, faces: ParsedFaces) -> tuple[Tensor, Tensor]:
    """Label maps in colour (B, H, W, 3), 0..1, and the pictures with these laid over by half.

    Args:
        images: (B, H, W, 3), 0..1.
        faces: the parsed faces of these pictures.
    """
    numbers = label_maps(faces).to(images.device).long()
    palette = _palette(faces.parts).to(images)
    coloured = palette[numbers]
    over = torch.where(numbers[..., None] > 0, images + (coloured - images) * _OVER, images)
    return coloured, over


def parts_table(faces: ParsedFaces) -> str:
    """One line for each face: the parts found and their share of the face's map in percent."""
    lines = []
    counter: dict[int, int] = {}
    for number, labels in zip(faces.index, faces.labels, strict=True):
        face = counter[number] = counter.get(number, -1) + 1
        shares = torch.bincount(labels.flatten().long(), minlength=len(faces.parts)) * 100.0 / labels.numel()
        told = [f"{faces.parts[part]} {share:.1f}" for part, share in enumerate(shares.tolist()) if part and share > 0]
        lines.append(f"image {number} face {face}: {', '.join(told) or 'nothing but background'}")
    return "\n".join(lines)


def _palette(parts: Sequence[str]) -> Tensor:
    return torch.tensor([COLOURS.get(name, (255, 255, 255)) for name in parts]) / 255
