"""Where MuseTalk and UnAvgLip paste a painted face: classes of a face parser, widened and cut as their authors do.

Follows ``musetalk/utils/face_parsing/__init__.py`` (v1.5) and the blending of UnAvgLip; the class numbers are those of
CelebAMask-HQ's BiSeNet, which the names of another parser's parts are mapped to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Region = Literal["raw", "neck", "jaw", "full_face"]
REGIONS: tuple[str, ...] = get_args(Region)
SIDE = 512
SKIN, NOSE, NECK = 1, 10, 14
MOUTH = (11, 12, 13)
CHEEK = 80
CLASSES: dict[str, int] = {
    "skin": 1,
    "left brow": 2,
    "right brow": 3,
    "left eye": 4,
    "right eye": 5,
    "glasses": 6,
    "left ear": 7,
    "right ear": 8,
    "earring": 9,
    "nose": 10,
    "inner mouth": 11,
    "upper lip": 12,
    "lower lip": 13,
    "neck": 14,
    "necklace": 15,
    "cloth": 16,
    "hair": 17,
    "hat": 18,
}
_JAW_SIDE, _JAW_FIRST, _JAW_LAST = 33, 10, 20


def class_table(parts: Sequence[str]) -> Tensor:
    """(256,) uint8: BiSeNet's class for each number of a parser's part; 0 for those it does not know."""
    table = torch.zeros(256, dtype=torch.uint8)
    for number, name in enumerate(parts):
        table[number] = CLASSES.get(name, 0)
    return table


def region_mask(classes: Tensor, region: Region, cheek: int = CHEEK) -> Tensor:
    """The region (512, 512) bool of a map of classes (512, 512).

    Args:
        classes: BiSeNet's class of each pixel of the crop.
        region: ``raw`` skin and mouth (v1), ``neck`` with the neck, ``jaw`` without nose and with a smoothed jaw
            (v1.5), ``full_face`` everything of the face (UnAvgLip).
        cheek: with ``jaw``, how far from the middle the cheeks begin (official: 80; its command line passes 90).
    """
    if region == "full_face":
        return (classes >= 1) & (classes <= MOUTH[-1])
    mouth = torch.isin(classes, torch.tensor(MOUTH, device=classes.device))
    skin = classes == SKIN
    if region == "raw":
        return mouth | skin
    if region == "neck":
        return mouth | skin | (classes == NECK)
    return (_jaw(skin, cheek) & (classes != NOSE)) | mouth


def jaw_kernel() -> Tensor:
    """(33, 33) bool, by which skin is grown downwards: a triangle in rows 10..20, then a strip 21 wide."""
    kernel = torch.zeros(_JAW_SIDE, _JAW_SIDE, dtype=torch.bool)
    middle = _JAW_SIDE // 2
    for row, reach in _jaw_rows():
        kernel[row, middle - reach : middle + reach + 1] = True
    return kernel


def cheek_kernel() -> Tensor:
    """(3, 35) bool, OpenCV's ellipse: a full row between two single points."""
    kernel = torch.zeros(3, 35, dtype=torch.bool)
    kernel[1] = True
    kernel[:, 17] = True
    return kernel


def _jaw_rows() -> list[tuple[int, int]]:
    return [(row, min(row, _JAW_LAST) - _JAW_FIRST) for row in range(_JAW_FIRST, _JAW_SIDE)]


def _jaw(skin: Tensor, cheek: int) -> Tensor:
    """Skin grown by the jaw's kernel; in the cheeks eroded again by the ellipse, twice."""
    grown = _grown(skin)
    cheeks = torch.zeros_like(skin)
    middle = SIDE // 2
    cheeks[:, : max(0, middle - cheek + 1)] = True
    cheeks[:, middle + cheek :] = True
    return torch.where(cheeks, _eroded(_eroded(grown)), grown)


def _grown(mask: Tensor) -> Tensor:
    planes, height = mask.float()[None, None], mask.shape[0]
    found = torch.zeros_like(mask)
    for row, reach in _jaw_rows():
        wide = functional.max_pool2d(planes, (1, 2 * reach + 1), 1, (0, reach))[0, 0] > 0
        shift = row - _JAW_SIDE // 2
        kept = wide[max(0, shift) : height + min(0, shift)]
        found[max(0, -shift) : height - max(0, shift)] |= kept
    return found


def _eroded(mask: Tensor) -> Tensor:
    """Eroded by the ellipse; beyond the picture nothing erodes."""
    outside = (~mask).float()[None, None]
    row = functional.max_pool2d(outside, (1, 35), 1, (0, 17))
    column = functional.max_pool2d(outside, (3, 1), 1, (1, 0))
    return torch.maximum(row, column)[0, 0] == 0
