"""Faces whose parts are known: what a parser gives, names and groups of parts, and masks in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .crops import picture_numbers
from .errors import FaceChoice
from .filters import dilate, erode, gaussian_blur
from .masks import head_mask_of_parts, region_of
from .typed import typed
from .types import FaceBatch
from .warp import invert, warp

BACKGROUND = "background"
_INSIDE = ("left brow", "right brow", "left eye", "right eye", "nose", "inner mouth", "lower lip", "upper lip")
GROUPS: dict[str, tuple[str, ...]] = {
    "brows": ("left brow", "right brow"),
    "eyes": ("left eye", "right eye"),
    "ears": ("left ear", "right ear"),
    "lips": ("upper lip", "lower lip"),
    "mouth": ("upper lip", "inner mouth", "lower lip"),
    "face": ("skin", *_INSIDE),
    "accessories": ("glasses", "hat", "earring", "necklace"),
    "head": ("skin", *_INSIDE, "left ear", "right ear", "hair", "glasses", "hat", "earring"),
}
EVERYTHING = "person"


@dataclass(frozen=True, eq=False)
class ParsedFaces(FaceBatch):
    """Faces and the parts of each: picture by picture, face by face.

    Attributes:
        parts: names by number; number 0 is the background.
        labels: for each face a map (S, S) uint8 of numbers; S may differ from face to face.
        matrices: (N, 2, 3) float64 from picture to map.
    """

    parts: tuple[str, ...] = ()
    labels: tuple[Tensor, ...] = ()
    matrices: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != sum(self.counts):
            raise FaceChoice(
                "parsed faces",
                expected=f"the {len(self.labels)} faces that were parsed",
                found=f"{sum(self.counts)} faces",
                cure="select faces before they are parsed",
            )

    @property
    def index(self) -> list[int]:
        """Number of the picture of each face."""
        return picture_numbers(self)


def parsed(faces: FaceBatch, what: str) -> ParsedFaces:
    """``faces`` if their parts are known. Raises FaceChoice otherwise."""
    if isinstance(faces, ParsedFaces):
        return faces
    raise FaceChoice(
        what,
        expected="faces whose parts are known",
        found="faces that were not parsed",
        cure="connect the faces of Parse Faces",
    )


def part_numbers(parts: Sequence[str], names: str) -> tuple[int, ...]:
    """Numbers of the named parts.

    Args:
        parts: names by number.
        names: parts or groups, separated by commas, semicolons or lines; a minus before a name takes it out again.
            Of a group only the parts that this parser knows count.

    Raises:
        FaceChoice: an unknown name, or nothing left.
    """
    chosen: set[str] = set()
    for word in typed(names).replace(";", ",").replace("\n", ",").split(","):
        name = " ".join(word.strip().lower().replace("_", " ").split())
        if not name:
            continue
        named = _named(parts, name.removeprefix("-").strip())
        chosen = chosen - named if name.startswith("-") else chosen | named
    if not chosen:
        raise FaceChoice("parts", expected="at least one part", found=repr(names), cure=f"name some of {_list(parts)}")
    return tuple(number for number, name in enumerate(parts) if name in chosen)


def _named(parts: Sequence[str], name: str) -> set[str]:
    if name == EVERYTHING:
        return set(parts) - {BACKGROUND}
    found = set(GROUPS.get(name, (name, name.removesuffix("s")))) & set(parts)
    if not found:
        raise FaceChoice(
            f"part {name!r}",
            expected="a part or a group that this parser knows",
            found="none of that name",
            cure=f"choose among {_list(parts)}",
        )
    return found


def _list(parts: Sequence[str]) -> str:
    known = [name for name, members in GROUPS.items() if set(members) & set(parts)]
    return ", ".join([*parts, *known, EVERYTHING])


def part_masks(faces: ParsedFaces, numbers: Sequence[int]) -> Tensor:
    """Masks (N, H, W) float32, 0..1, of the parts of these numbers, one for each face, soft by a pixel at the rim."""
    height, width = faces.image_size
    masks = torch.zeros(len(faces.labels), height, width)
    wanted = torch.zeros(max(256, len(faces.parts)))
    wanted[list(numbers)] = 1
    for mask, labels, matrix in zip(masks, faces.labels, _matrices(faces), strict=True):
        _draw(mask, wanted[labels.long()], matrix)
    return masks


def by_picture(faces: FaceBatch, masks: Tensor) -> Tensor:
    """Masks of faces (N, H, W) united to one for each picture (B, H, W); a picture without a face is black."""
    united = masks.new_zeros(len(faces), *masks.shape[1:])
    for number, mask in zip(picture_numbers(faces), masks, strict=True):
        united[number] = torch.maximum(united[number], mask)
    return united


def grown(masks: Tensor, grow: int, feather: int) -> Tensor:
    """Masks (N, H, W) widened by ``grow`` pixels on every side (narrowed where negative), then blurred.

    Args:
        masks: 0..1.
        grow: pixels.
        feather: radius of the blur in pixels.
    """
    if not len(masks):
        return masks
    side = 2 * abs(grow) + 1
    if grow:
        masks = dilate(masks, side) if grow > 0 else erode(masks, side)
    return gaussian_blur(masks, 2 * feather + 1).clamp(0, 1) if feather > 0 else masks


def head_masks(faces: ParsedFaces, everyone: bool) -> tuple[Tensor, list[int]]:
    """FACT's head masks (B, H, W), 0 or 1, and the numbers of the pictures that got none.

    Face is skin, brows, eyes, nose and mouth; hair is hair; the person is everything but background. A picture in
    which nothing of this was found is white, as in the official preparation of training data.

    Args:
        faces: the parsed faces.
        everyone: unite the heads of all faces of a picture instead of taking its first one.
    """
    names = [part_numbers(faces.parts, name) for name in ("face", "hair", EVERYTHING)]
    face, hair, person = (part_masks(faces, numbers).round() for numbers in names)
    masks = torch.zeros(len(faces), *faces.image_size)
    seen: set[int] = set()
    for row, number in enumerate(faces.index):
        if everyone or number not in seen:
            seen.add(number)
            masks[number] = torch.maximum(masks[number], head_mask_of_parts(face[row], hair[row], person[row]))
    without = [number for number, mask in enumerate(masks) if not bool(mask.any())]
    masks[without] = 1
    return masks, without


def label_maps(faces: ParsedFaces) -> Tensor:
    """(B, H, W) uint8: the number of the part in each pixel; where faces overlap the first one of a picture holds."""
    height, width = faces.image_size
    maps = torch.zeros(len(faces), height, width, dtype=torch.uint8)
    rows = list(zip(faces.index, faces.labels, _matrices(faces), strict=True))
    for number, labels, matrix in reversed(rows):
        x1, y1, x2, y2 = region_of(invert(matrix), labels.shape[-1], height, width, margin=1)
        if x2 <= x1 or y2 <= y1:
            continue
        found = _nearest(labels, matrix, (x1, y1, x2, y2))
        place = maps[number, y1:y2, x1:x2]
        place.copy_(torch.where(found > 0, found, place))
    return maps


def _matrices(faces: ParsedFaces) -> Tensor:
    return torch.zeros(0, 2, 3, dtype=torch.float64) if faces.matrices is None else faces.matrices


def _nearest(labels: Tensor, matrix: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The labels (S, S) as they lie in a box of their picture: (h, w), 0 beyond the map."""
    x1, y1, x2, y2 = box
    x = torch.arange(x1, x2, dtype=torch.float64)[None]
    y = torch.arange(y1, y2, dtype=torch.float64)[:, None]
    column, line = ((row[0] * x + row[1] * y + row[2]).round().long() for row in matrix)
    size = labels.shape[-1]
    inside = (column >= 0) & (column < size) & (line >= 0) & (line < size)
    found = labels[line.clamp(0, size - 1), column.clamp(0, size - 1)]
    return torch.where(inside, found, torch.zeros_like(found))


def _draw(mask: Tensor, part: Tensor, matrix: Tensor) -> None:
    """Draw a part (S, S), 0 or 1, into the mask (H, W) of its picture, in place."""
    part, matrix = _coarser(part, matrix)
    x1, y1, x2, y2 = region_of(invert(matrix), part.shape[-1], mask.shape[0], mask.shape[1], margin=1)
    if x2 <= x1 or y2 <= y1:
        return
    backward = invert(matrix)
    backward[:, 2] -= torch.tensor([x1, y1], dtype=torch.float64)
    mask[y1:y2, x1:x2] = warp(part[None, None], backward[None], (y2 - y1, x2 - x1))[0, 0].clamp(0, 1)


def _coarser(part: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A map much finer than its picture averaged down first, so that no pixel of it is passed over."""
    finer = int(float(torch.linalg.svdvals(matrix[:, :2]).min()))
    size = part.shape[-1] // finer if finer > 1 else part.shape[-1]
    if size == part.shape[-1] or size < 1:
        return part, matrix
    factor = size / part.shape[-1]
    moved = matrix * factor
    moved[:, 2] += (factor - 1) / 2
    return F.interpolate(part[None, None], size=(size, size), mode="area")[0, 0], moved
