"""Putting swapped crops back: one mask for each face, of box, parsing, occlusion and the user's own.

Erosion and feather are in pixels of the picture, so that small and large faces get the same rim. Pixels outside the
mask are bit-equal to the picture's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .colour_transfer import Transfer, transfer
from .crops import CroppedFaces
from .errors import BadImage, FaceChoice
from .masks import Box, soft_square
from .paste import blend
from .types import FaceBatch
from .warp import compose, invert, warp


@dataclass(frozen=True)
class PasteOptions:
    """How swapped crops are put back.

    Attributes:
        shrink: pixels of the picture by which the mask is eroded; None for insightface's tenth of the face.
        feather: pixels of the picture over which it fades; None for insightface's twentieth.
        colour: see `faces.colour_transfer`.
        colour_strength: 0..1.
        strength: 0..1, how much of the swap is seen.
    """

    shrink: int | None = None
    feather: int | None = None
    colour: Transfer = "none"
    colour_strength: float = 1.0
    strength: float = 1.0


def paste_swaps(
    images: Tensor,
    faces: FaceBatch,
    crops: Tensor,
    options: PasteOptions | None = None,
    crop_masks: Tensor | None = None,
    picture_masks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Put crops back into a copy of their pictures.

    Args:
        images: (B, H, W, 3), 0..1.
        faces: a `CroppedFaces`.
        crops: (N, S, S, 3), 0..1, in the faces' order; S may be another size than they were cut in.
        options: see `PasteOptions`.
        crop_masks: (N, S', S') in pixels of the crops, 0..1: parsing, occlusion, padding.
        picture_masks: (B, H, W), 0..1: where the user allows a change. Not eroded and not blurred.

    Returns:
        The pictures (B, H, W, 3), and the masks (B, H, W) of what was changed, 0..1.

    Raises:
        FaceChoice: faces that were not cut out.
        BadImage: other pictures, or crops that do not fit in number or shape.
    """
    options = options or PasteOptions()
    matrices = _places(images, faces, crops)
    result, changed = images.clone(), images.new_zeros(images.shape[:3])
    size = crops.shape[1]
    for number, (owner, place) in enumerate(zip(_owners(faces), matrices, strict=True)):
        inner = None if crop_masks is None else _fitted(crop_masks[number], size)
        box, mask = soft_square(
            invert(place),
            size,
            images.shape[1],
            images.shape[2],
            options.shrink,
            options.feather,
            torch.ones(size, size) if inner is None else inner,
        )
        if not mask.numel():
            continue
        x1, y1, x2, y2 = box
        mask = (mask * options.strength).to(images.device)
        if picture_masks is not None:
            mask = torch.minimum(mask, picture_masks[owner, y1:y2, x1:x2].to(mask))
        crop = _coloured(images[owner], crops[number].movedim(-1, 0), place, options, inner)
        blend(result[owner], _into_box(crop, place, box), box, mask)
        region = changed[owner, y1:y2, x1:x2]
        region.copy_(torch.maximum(region, mask))
    return result, changed


def unseen(faces: FaceBatch, changed: Tensor) -> list[int]:
    """Numbers of the pictures in which nothing is seen of any crop; changed (B, H, W) as `paste_swaps` gives it."""
    return [number for number, count in enumerate(faces.counts) if count and not bool(changed[number].any())]


def _coloured(image: Tensor, crop: Tensor, place: Tensor, options: PasteOptions, inner: Tensor | None) -> Tensor:
    if options.colour == "none":
        return crop
    original = warp(image.movedim(-1, 0)[None], place[None], crop.shape[-1], "border").clamp(0, 1)
    masks = None if inner is None else inner[None]
    return transfer(crop[None].to(original), original, options.colour, options.colour_strength, masks)[0]


def _into_box(crop: Tensor, place: Tensor, box: Box) -> Tensor:
    """(h, w, 3): the crop as it lies in the box, its border repeated so that a soft rim never meets black."""
    x1, y1, x2, y2 = box
    backward = invert(place)
    backward[:, 2] -= torch.tensor([x1, y1], dtype=torch.float64)
    placed = warp(crop[None], backward[None], (y2 - y1, x2 - x1), "border", "bicubic")
    return placed[0].movedim(0, -1).clamp(0, 1)


def _fitted(mask: Tensor, size: int) -> Tensor:
    if mask.shape[-1] == size:
        return mask
    return torch.nn.functional.interpolate(mask[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0]


def _owners(faces: FaceBatch) -> list[int]:
    return [number for number, count in enumerate(faces.counts) for _ in range(count)]


def _places(images: Tensor, faces: FaceBatch, crops: Tensor) -> Tensor:
    """Matrices (N, 2, 3) float64 from picture to the crops as they are now."""
    if not isinstance(faces, CroppedFaces) or faces.matrices is None:
        raise FaceChoice(
            "paste swapped faces",
            expected="faces that remember their crops",
            found="faces that were not cut out",
            cure="connect the faces of Swap Faces or Crop Faces",
        )
    size = (int(images.shape[1]), int(images.shape[2]))
    if (len(images), size) != (len(faces), faces.image_size) or len(crops) != len(faces.matrices):
        raise BadImage(
            "paste swapped faces",
            expected=f"the {len(faces)} pictures of {faces.image_size[1]} x {faces.image_size[0]} and "
            f"{len(faces.matrices)} crops",
            found=f"{len(images)} of {size[1]} x {size[0]} and {len(crops)}",
            cure="connect the pictures in which the faces were found, and all crops in their order",
        )
    if len(crops) and crops.shape[1] != crops.shape[2]:
        raise BadImage(
            "paste swapped faces",
            expected="square crops",
            found=f"{crops.shape[2]} x {crops.shape[1]}",
            cure="leave the crops' shape as it is",
        )
    factor = crops.shape[1] / faces.size
    shift = (factor - 1) / 2
    resizing = torch.tensor([[factor, 0.0, shift], [0.0, factor, shift]], dtype=torch.float64)
    return torch.stack([compose(resizing, one.double()) for one in faces.matrices]) if len(crops) else faces.matrices
