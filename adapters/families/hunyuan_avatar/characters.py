"""From the faces or masks of a picture or clip to one latent mask for each character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....faces.errors import BadMask, FaceChoice, NoFaceFound
from ....faces.masks import as_mask
from ....faces.select import ORDERS, order_faces
from ....faces.tracking import TrackedFaces
from ....faces.types import FaceBatch, Faces
from .face_mask import (
    AREA,
    CELL,
    OVERLAPS,
    Overlap,
    PixelBox,
    apart,
    box_masks,
    latent_masks,
    latent_times,
    official_choice,
    outline,
    pixel_box,
)
from .windows import RATE

OFFICIAL = "official"
CHARACTER_ORDERS = (*ORDERS, OFFICIAL)
# How many characters one node tells apart.
MOST = 4
# More than any video model makes; a wire can bring any number.
LONGEST_SIDE = 16384


@dataclass(frozen=True)
class CharacterOptions:
    """How the masks of characters are made.

    Attributes:
        characters: how many there are.
        order: which face is which character where nobody tracked them, one of `CHARACTER_ORDERS`.
        area: how many times wider and higher than the face a box is (official: 3).
        overlap: whose the places are that several claim, see `face_mask.apart`.
        box_of_masks: take the box around a drawn mask, ``area`` times larger, instead of the mask itself.
        hold: where a tracked person is not seen, keep the box of the nearest frame; else the mask is empty there.
        whole_picture: a single character without a face gets the whole picture, as officially; else that is an error.
    """

    characters: int = 1
    order: str = "largest"
    area: float = AREA
    overlap: Overlap = "nearest"
    box_of_masks: bool = False
    hold: bool = True
    whole_picture: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.characters <= MOST or self.order not in CHARACTER_ORDERS or self.overlap not in OVERLAPS:
            raise FaceChoice(
                "characters",
                expected=f"1 to {MOST} characters, an order and an overlap of the lists",
                found=f"{self.characters}, {self.order!r}, {self.overlap!r}",
                cure="choose from the lists",
            )


@dataclass(frozen=True, eq=False)
class CharacterMasks:
    """The result.

    Attributes:
        masks: of each character, (1 or T, h, w), 0..1, at the size of latents.
        notes: a sentence for each character.
    """

    masks: tuple[Tensor, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Claim:
    """What one character claims: latent masks (F, h, w), their centres (F, 2) in cells, and where it comes from."""

    masks: Tensor
    centres: Tensor
    source: str


def character_masks(
    faces: FaceBatch | None,
    drawn: Mapping[int, Tensor],
    size: tuple[int, int],
    frames: int,
    options: CharacterOptions | None = None,
) -> CharacterMasks:
    """Make one mask for each character.

    Args:
        faces: of the character picture (one), or of a clip's video or latent frames; tracked where several characters
            move.
        drawn: masks (H, W) or (F, H, W) by number of the character (from 0), which stand instead of a face.
        size: (height, width) of the video in pixels.
        frames: video frames of the clip.
        options: see `CharacterOptions`.

    Raises:
        NoFaceFound, FaceChoice: fewer faces or persons than characters.
        BadMask: a mask that cannot be used, or as many frames as no clip of this length has.
    """
    options = options or CharacterOptions()
    height, width = size
    latent_frames = (frames - 1) // RATE + 1
    if min(height, width) < CELL or max(height, width) > LONGEST_SIDE or frames < 1:
        raise BadMask(
            "masks of characters",
            expected=f"a video of {CELL} to {LONGEST_SIDE} pixels and 1 frame at least",
            found=f"{width} x {height}, {frames} frames",
            cure="set the size and length of the video",
        )
    wanted = [number for number in range(options.characters) if number not in drawn]
    boxes = _boxes(faces, len(wanted), options) if wanted else []
    claims = {number: _of_boxes(found, faces, size, options) for number, found in zip(wanted, boxes, strict=True)}
    claims |= {n: _drawn(mask, n, size, options) for n, mask in drawn.items() if n < options.characters}
    timed = [_timed(claims[number], latent_frames) for number in range(options.characters)]
    longest = max(len(claim.masks) for claim in timed)
    settled = apart(
        [claim.masks.expand(longest, -1, -1) for claim in timed],
        [claim.centres.expand(longest, -1) for claim in timed],
        options.overlap,
    )
    return CharacterMasks(tuple(settled), tuple(map(_told, range(1, MOST + 1), settled, timed)))


def clip_of(
    faces: FaceBatch | None, drawn: Mapping[int, Tensor], size: tuple[int, int], frames: int
) -> tuple[tuple[int, int], int]:
    """Size (height, width) and video frames of a clip, where 0 means: as the faces are, else as the first mask is.

    Raises:
        BadMask: neither is known.
    """
    first = next(iter(drawn.values()), None)
    if faces is not None:
        known, count = faces.image_size, len(faces)
    elif first is not None:
        known, count = (int(first.shape[-2]), int(first.shape[-1])), 1 if first.ndim == 2 else len(first)
    elif min(size) > 0:
        known, count = size, 1
    else:
        raise BadMask(
            "masks of characters",
            expected="faces, a mask, or the size of the video",
            found="none of them",
            cure="connect faces, or set width and height",
        )
    return (size[0] or known[0], size[1] or known[1]), frames or count


def _boxes(faces: FaceBatch | None, count: int, options: CharacterOptions) -> list[list[Tensor | None]]:
    """For each character the box of its face in every frame."""
    if faces is None:
        if options.whole_picture and count == 1:
            return [[None]]
        raise _too_few("no faces and no mask", count)
    if isinstance(faces, TrackedFaces) and (len(faces) > 1 or count > 1):
        return _tracked(faces, count, options)
    if len(faces) > 1 and count > 1:
        raise FaceChoice(
            "characters",
            expected="faces that know whose they are, for several characters in a clip",
            found=f"{len(faces)} frames of faces that nobody tracked",
            cure="put 'Track Faces' before this node, or give the faces of the one character picture",
        )
    return _ordered(faces, count, options)


def _ordered(faces: FaceBatch, count: int, options: CharacterOptions) -> list[list[Tensor | None]]:
    found: list[list[Tensor | None]] = [[] for _ in range(count)]
    for number, one in enumerate(faces.images):
        if len(one) < count:
            if count == 1 and options.whole_picture:
                found[0].append(None)
                continue
            raise _too_few(f"{len(one)} in frame {number}", count)
        for character, index in enumerate(_order(one, options.order)[:count]):
            found[character].append(one.boxes[index])
    return found


def _order(faces: Faces, order: str) -> list[int]:
    if order != OFFICIAL:
        return order_faces(faces, order)
    first = official_choice(faces.boxes)
    return [first, *(index for index in range(len(faces)) if index != first)]


def _tracked(tracks: TrackedFaces, count: int, options: CharacterOptions) -> list[list[Tensor | None]]:
    people = tracks.people
    if len(people) < count:
        raise _too_few(f"{len(people)} persons in {len(tracks)} frames", count)
    return [_places(tracks, person, options.hold) for person in people[:count]]


def _places(tracks: TrackedFaces, person: int, hold: bool) -> list[Tensor | None]:
    places = tracks.places(person)
    seen: list[Tensor | None] = []
    for frame in range(len(tracks)):
        if frame not in places and not hold:
            # An empty box: no place in the picture is this person's.
            seen.append(torch.zeros(4))
            continue
        nearest = min(places, key=lambda other: abs(other - frame))
        seen.append(tracks.images[nearest].boxes[places[nearest]])
    return seen


def _of_boxes(
    boxes: Sequence[Tensor | None], faces: FaceBatch | None, size: tuple[int, int], options: CharacterOptions
) -> _Claim:
    height, width = size
    if faces is not None:
        scale = torch.tensor([width / faces.image_size[1], height / faces.image_size[0]]).repeat(2)
        boxes = [None if box is None else box * scale for box in boxes]
    placed = [pixel_box(None if box is None else box.tolist(), height, width, options.area) for box in boxes]
    whole = torch.tensor([0.0, 0.0, width, height])
    centres = [(box if box is not None else whole).view(2, 2).mean(0) / CELL for box in boxes]
    source = "the whole picture, since there is no face" if boxes[0] is None else "a face"
    return _Claim(_small(placed, size), torch.stack(centres), source)


def _small(boxes: Sequence[PixelBox], size: tuple[int, int]) -> Tensor:
    """Latent masks of boxes, one after the other: masks of whole pictures would need a hundred times the memory."""
    made: dict[PixelBox, Tensor] = {}
    for box in boxes:
        if box not in made:
            made[box] = latent_masks(box_masks([box], *size), size[0] // CELL, size[1] // CELL)[0]
    return torch.stack([made[box] for box in boxes])


def _drawn(mask: Tensor, number: int, size: tuple[int, int], options: CharacterOptions) -> _Claim:
    height, width = size
    what = f"mask of character {number + 1}"
    frames = 1 if mask.ndim == 2 else len(mask)
    grid = (height // CELL, width // CELL)
    if not options.box_of_masks:
        # A mask that already has the size of latents stays as it is.
        same = tuple(mask.shape[-2:]) == grid
        large = as_mask(mask, frames, *(grid if same else size), what=what)
        masks = torch.cat([latent_masks(one[None], *grid) for one in large])
        return _Claim(masks, torch.stack([_centre(one) for one in masks]), "a mask")
    outlines = [outline(one) for one in as_mask(mask, frames, height, width, what)]
    empty = [place for place, box in enumerate(outlines) if box is None]
    if empty:
        raise BadMask(what, expected="something drawn", found=f"nothing in frame {empty[0]}", cure="draw the face")
    boxes = [None if box is None else torch.tensor(box, dtype=torch.float32) for box in outlines]
    return _of_boxes(boxes, None, size, options)


def _centre(mask: Tensor) -> Tensor:
    height, width = mask.shape
    weight = mask.sum().clamp(min=1e-6)
    x = (mask.sum(0) * (torch.arange(width) + 0.5)).sum() / weight
    y = (mask.sum(1) * (torch.arange(height) + 0.5)).sum() / weight
    return torch.stack((x, y))


def _timed(claim: _Claim, frames: int) -> _Claim:
    masks = latent_times(claim.masks, frames)
    centres = claim.centres if len(masks) == len(claim.centres) else claim.centres[::RATE]
    return _Claim(masks, centres, claim.source)


def _told(number: int, mask: Tensor, claim: _Claim) -> str:
    moving = "one mask for the whole clip" if len(mask) == 1 else f"{len(mask)} latent frames"
    return f"character {number}: {moving}, from {claim.source}, {float(mask.mean()):.1%} of the picture"


def _too_few(found: str, count: int) -> NoFaceFound:
    return NoFaceFound(
        "characters",
        expected=f"{count} faces" if count > 1 else "a face",
        found=found,
        cure="set fewer characters, lower the detector's score, or draw the mask of each one",
    )
