"""Faces cut out to be worked on, and put back: the crops remember where they came from.

Crop and paste follow facexlib's ``FaceRestoreHelper``, whose template restorers were trained with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .align import align_matrix
from .errors import BadImage, BadMask, FaceChoice, NoFaceFound
from .filters import erode, gaussian_blur
from .masks import Box, as_mask, region_of
from .paste import paste_in_region
from .types import FaceBatch
from .warp import chunks, compose, invert, warp

TEMPLATE = "face_restore_512"
# Share of the square's side over which facexlib fades; it erodes by twice as much before.
FADE = 20


@dataclass(frozen=True, eq=False)
class CroppedFaces(FaceBatch):
    """Faces that were cut out, in the order of their crops: picture by picture, face by face.

    Attributes:
        matrices: (N, 2, 3) float64 from picture to crop.
        size: side of the crops in pixels.
    """

    matrices: Tensor | None = None
    size: int = 0

    def __post_init__(self) -> None:
        count = 0 if self.matrices is None else len(self.matrices)
        if count != sum(self.counts):
            raise FaceChoice(
                "cropped faces",
                expected=f"the {count} faces that were cut out",
                found=f"{sum(self.counts)} faces",
                cure="select faces before they are cut out",
            )

    @property
    def index(self) -> list[int]:
        """Number of the picture of each crop."""
        return picture_numbers(self)


def picture_numbers(batch: FaceBatch) -> list[int]:
    """Number of the picture of each face."""
    return [number for number, count in enumerate(batch.counts) for _ in range(count)]


def cut_faces(
    images: Tensor, batch: FaceBatch, size: int = 512, template: str = TEMPLATE
) -> tuple[Tensor, CroppedFaces]:
    """Cut every face out.

    Args:
        images: (B, H, W, 3), 0..1, in which the faces were found.
        batch: the faces.
        size: side of the crops.
        template: a name of `faces.templates`.

    Returns:
        Crops (N, size, size, 3), the border of a picture repeated beyond it, and the faces with their places.

    Raises:
        BadImage: other pictures than those of the faces.
        NoFaceFound: no face at all.
    """
    check_same_pictures(images, batch)
    if not sum(batch.counts):
        raise NoFaceFound(
            "crop faces",
            expected="at least one face",
            found="none",
            cure="detect or match faces before, or lower limits",
        )
    points = torch.cat([faces.landmarks5 for faces in batch.images])
    matrices = align_matrix(points.double(), template, size)
    planes, index = images.movedim(-1, 1), torch.tensor(picture_numbers(batch))
    each = images[:1].numel() + 3 * size * size
    crops = [
        warp(planes.index_select(0, index[part].to(images.device)), matrices[part], size, "border")
        for part in chunks(len(index), each)
    ]
    faces = CroppedFaces(
        batch.images, batch.image_size, batch.detector, batch.embedding_encoder, batch.notes, matrices, size
    )
    return torch.cat(crops).movedim(1, -1).clamp(0, 1), faces


def paste_crops(
    images: Tensor, faces: FaceBatch, crops: Tensor, masks: Tensor | None = None, strength: float = 1.0
) -> Tensor:
    """Put crops back by soft squares; every pixel outside of these stays bit-equal.

    Args:
        images: (B, H, W, 3), 0..1.
        faces: a `CroppedFaces` of `cut_faces`.
        crops: (N, S, S, 3), 0..1; S may be another size than that of the crops.
        masks: where in a crop to take it, (H', W') or (N, H', W'), 0..1, beside the soft square; None takes all.
        strength: 0 leaves the pictures as they are.

    Raises:
        FaceChoice: faces that were not cut out.
        BadImage: other pictures, or crops that do not fit in number or shape.
        BadMask: masks that do not fit, or hide all crops.
    """
    if not isinstance(faces, CroppedFaces) or faces.matrices is None:
        raise FaceChoice(
            "paste faces",
            expected="faces that remember their crops",
            found="faces that were not cut out",
            cure="connect the faces of Crop Faces",
        )
    check_same_pictures(images, faces)
    _check_crops(crops, len(faces.matrices))
    side = crops.shape[1]
    places = [compose(_resizing(side / faces.size), matrix) for matrix in faces.matrices]
    inner = None if masks is None else _seen(as_mask(masks, len(crops), side, side, "mask of the crops", "crop"))
    result = list(images.clone())
    for number, place in enumerate(places):
        picture = result[faces.index[number]]
        box, mask = soft_region(place, side, picture.shape[0], picture.shape[1])
        if inner is not None and mask.numel():
            mask = torch.minimum(mask, _into(inner[number], place, box))
        crop = crops[number].movedim(-1, 0)
        result[faces.index[number]] = paste_in_region(picture, crop, place, box, mask * strength)
    return torch.stack(result)


def _seen(masks: Tensor) -> Tensor:
    if len(masks) and not bool(masks.any()):
        raise BadMask(
            "mask of the crops",
            expected="masks that are white somewhere",
            found="black ones only, so that no crop would be seen",
            cure="look at what made them, or disconnect them",
        )
    return masks


def soft_region(matrix: Tensor, size: int, height: int, width: int) -> tuple[Box, Tensor]:
    """The box of a crop in its picture, and facexlib's soft mask (h, w) there.

    With s the side of the crop's square in the picture: one pixel off, then eroded by s / 10, then blurred by s / 20.

    Args:
        matrix: (2, 3) from picture to crop.
        size: side of the crop.
        height: of the picture.
        width: of the picture.
    """
    box = region_of(invert(matrix.cpu().double()), size, height, width, margin=2)
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return box, torch.zeros(0, 0)
    # Zeros around the box stand for the picture beyond it, which the crop does not reach; at the picture's own border
    # nothing erodes.
    whole = torch.ones(size, size)
    mask = erode(_into(whole, matrix, box), 2)
    edge = int(math.sqrt(float(mask.sum()))) // FADE
    if edge < 1:
        return box, mask
    # The even kernels let the blur reach a pixel beyond the square, where facexlib blends black in.
    return box, torch.minimum(gaussian_blur(erode(mask, 2 * edge), 2 * edge + 1), mask)


def _into(mask: Tensor, matrix: Tensor, box: Box) -> Tensor:
    """A mask (S, S) of a crop as it lies in a box of its picture: (h, w)."""
    x1, y1, x2, y2 = box
    backward = invert(matrix.cpu().double())
    backward[:, 2] -= torch.tensor([x1, y1], dtype=torch.float64)
    return warp(mask[None, None], backward[None], (y2 - y1, x2 - x1))[0, 0]


def _resizing(factor: float) -> Tensor:
    """The matrix (2, 3) that resizes a crop, pixel centres at integers."""
    shift = (factor - 1) / 2
    return torch.tensor([[factor, 0.0, shift], [0.0, factor, shift]], dtype=torch.float64)


def check_same_pictures(images: Tensor, batch: FaceBatch) -> None:
    """Refuse pictures (B, H, W, 3) other than those in which the faces were found.

    Raises:
        BadImage: another number or another size.
    """
    found = (int(images.shape[0]), (int(images.shape[1]), int(images.shape[2])))
    if found != (len(batch), batch.image_size):
        raise BadImage(
            "pictures and faces",
            expected=f"the {len(batch)} pictures of {_told(batch.image_size)} in which the faces were found",
            found=f"{found[0]} of {_told(found[1])}",
            cure="connect the pictures that went into the face detector",
        )


def _check_crops(crops: Tensor, count: int) -> None:
    if len(crops) == count and crops.shape[1] == crops.shape[2]:
        return
    raise BadImage(
        "paste faces",
        expected=f"{count} square crops, one for each face",
        found=f"{len(crops)} of {crops.shape[2]} x {crops.shape[1]}",
        cure="connect the crops in the order in which they were cut out, none left out",
    )


def _told(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


__all__ = ["CroppedFaces", "check_same_pictures", "cut_faces", "paste_crops", "picture_numbers", "soft_region"]
