"""Segmentation maps as pictures of one colour for each class: where two agree, and which exemplar fits a target best.

The agreement follows AM-Adapter's inference code: bilinear to 32 x 32, all three channels exactly equal. Mixed colours
at borders agree with almost nothing; labels resized by nearest pixels do.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Resize = Literal["official", "labels"]
SIDE = 32


def agreement(exemplar: Tensor, target: Tensor, resize: Resize = "official", side: int = SIDE) -> Tensor:
    """Where the maps show the same class.

    Args:
        exemplar, target: (C, H, W) maps of colours 0..1, each of any size.
        resize: ``official`` is bilinear, ``labels`` takes nearest pixels.
        side: of the grid on which the maps are compared.

    Returns:
        (side * side, side * side) of 0 and 1, indexed [exemplar pixel, target pixel]. The official processor adds it to
        logits that are indexed the other way round; checkpoints were trained so.
    """
    first, second = (_small(image, resize, side).flatten(1) for image in (exemplar, target))
    return (first[:, :, None] == second[:, None, :]).all(0).float()


def overlap(target: Tensor, exemplar: Tensor, side: int = 64) -> float:
    """How well an exemplar's layout fits a target: mean intersection over union of the classes of either map, 0..1.

    Args:
        target, exemplar: (3, H, W) maps of colours 0..1.
        side: of the grid on which the maps are compared, by nearest pixels.
    """
    first, second = (class_ids(_small(image, "labels", side)).flatten() for image in (target, exemplar))
    classes = torch.unique(torch.cat((first, second)))
    of_first, of_second = first[None] == classes[:, None], second[None] == classes[:, None]
    union = (of_first | of_second).sum(1)
    return float(((of_first & of_second).sum(1) / union).mean())


def class_ids(image: Tensor) -> Tensor:
    """One whole number for each colour: (3, H, W) of 0..1 -> (H, W)."""
    colours = (image.clamp(0, 1) * 255).round().long()
    return (colours[0] * 256 + colours[1]) * 256 + colours[2]


def _small(image: Tensor, resize: Resize, side: int) -> Tensor:
    if resize == "labels":
        return functional.interpolate(image[None], size=(side, side), mode="nearest-exact")[0]
    return functional.interpolate(image[None], size=(side, side), mode="bilinear", align_corners=False)[0]
