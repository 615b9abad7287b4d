"""From pictures with found faces to swapped crops: alignment, whom each face becomes, pixel boost, batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ...faces.align import align_matrix
from ...faces.crops import CroppedFaces, picture_numbers
from ...faces.detect import Progress, numbered
from ...faces.embeddings import average, balance
from ...faces.errors import BadImage, FaceChoice, NoFaceFound
from ...faces.tracking import TrackedFaces
from ...faces.types import FaceBatch
from ...faces.warp import warp
from ..identity import Identity
from .base import ENCODER, FaceSwapper, source_embeddings
from .pixel_boost import join_pixels, split_pixels

Rows = Literal["blend", "one each"]
ROWS: tuple[str, ...] = get_args(Rows)
NEUTRAL = 0.5
# Crops of one call of the network; larger batches gain little and take memory.
CROPS_AT_ONCE = 16


@dataclass(frozen=True)
class SwapOptions:
    """How faces are swapped.

    Attributes:
        boost: crops are this many times as wide as the network's, see `pixel_boost`.
        rows: ``"blend"`` gives every face the mean of the identity's rows; ``"one each"`` gives the first face of each
            picture row 0, the second row 1 and so on (of tracked faces: person 0 row 0), one row serving all faces.
        weight: 0.5 takes the person as encoded; 0 mixes 35 % of the face that was there in; 1 pushes as far away from
            it (facefusion). Other values need embeddings of the faces.
    """

    boost: int = 1
    rows: Rows = "blend"
    weight: float = NEUTRAL


@dataclass(frozen=True, eq=False)
class Swapped:
    """What a swap gives.

    Attributes:
        crops: (N, S, S, 3), 0..1, swapped.
        faces: which faces these are, and where their crops lie.
        notes: sentences for the report.
    """

    crops: Tensor
    faces: CroppedFaces
    notes: tuple[str, ...] = field(default=())


def swap_faces(
    images: Tensor,
    batch: FaceBatch,
    swapper: FaceSwapper,
    identity: Identity,
    options: SwapOptions | None = None,
    on_progress: Progress | None = None,
) -> Swapped:
    """Swap every face of a batch of pictures; pictures without a face are simply without a crop.

    Args:
        images: (B, H, W, 3), 0..1, in which the faces were found.
        batch: the faces.
        swapper: the network.
        identity: whom they become.
        options: see `SwapOptions`.
        on_progress: called with (faces done, faces in all); may raise to cancel.

    Raises:
        BadImage: other pictures than those of the faces.
        EncoderMismatch: an identity of another encoder.
        FaceChoice: no such option, or a weight without embeddings of the faces.
    """
    options = options or SwapOptions()
    _check(images, batch, options)
    embeddings = source_embeddings(swapper, identity)
    chosen, rows, notes = assigned(batch, len(embeddings), options.rows)
    source = _sources(embeddings, rows, options, chosen)
    size = swapper.size * options.boost
    matrices = _matrices(chosen, swapper, size)
    owners = picture_numbers(chosen)
    planes = images.movedim(-1, 1)
    crops = []
    step = max(1, CROPS_AT_ONCE // options.boost**2)
    for start in range(0, len(owners), step):
        part = slice(start, start + step)
        cut = [
            # Bilinear, as the authors cut, blurs what is seen of an unchanged face by one to two levels more.
            warp(planes[owner : owner + 1], matrix[None], size, "border", "bicubic")
            for owner, matrix in zip(owners[part], matrices[part], strict=True)
        ]
        crops.append(_swapped(torch.cat(cut).clamp(0, 1), source[part], swapper, options.boost))
        if on_progress is not None:
            on_progress(min(start + step, len(owners)), len(owners))
    found = torch.cat(crops) if crops else images.new_zeros(0, 3, size, size)
    faces = CroppedFaces(
        chosen.images, chosen.image_size, chosen.detector, chosen.embedding_encoder, chosen.notes, matrices, size
    )
    return Swapped(found.movedim(1, -1), faces, notes)


def assigned(batch: FaceBatch, rows: int, how: Rows) -> tuple[FaceBatch, list[int], tuple[str, ...]]:
    """Return (faces that become somebody, the identity's row of each, notes about faces left alone)."""
    if how == "blend" or rows == 1:
        return batch, [0] * sum(batch.counts), ()
    numbers = batch.persons if isinstance(batch, TrackedFaces) else [tuple(range(count)) for count in batch.counts]
    kept = [[index for index, number in enumerate(one) if number < rows] for one in numbers]
    chosen = [number for one in numbers for number in one if number < rows]
    left = sum(batch.counts) - len(chosen)
    notes = (f"{left} faces left as they are: the identity has only {rows} rows",) if left else ()
    images = [faces.take(index) for faces, index in zip(batch.images, kept, strict=True)]
    return batch.with_images(images), chosen, notes


def require_some(batch: FaceBatch) -> None:
    """Refuse pictures without a face.

    Raises:
        NoFaceFound: naming every picture without one.
    """
    missing = [number for number, count in enumerate(batch.counts) if not count]
    if missing:
        raise NoFaceFound(
            f"{numbered('image', missing)} (counted from 0)",
            expected="a face to swap in every image",
            found=f"none in {len(missing)} of {len(batch)}",
            cure='set on_missing_face to "keep", and these images pass unchanged',
        )


def _swapped(crops: Tensor, source: Tensor, swapper: FaceSwapper, boost: int) -> Tensor:
    parts, persons = split_pixels(crops, boost), source.repeat_interleave(boost * boost, 0)
    done = [
        swapper.swap(one, person)
        for one, person in zip(parts.split(CROPS_AT_ONCE), persons.split(CROPS_AT_ONCE), strict=True)
    ]
    return join_pixels(torch.cat(done), boost).clamp(0, 1)


def _matrices(batch: FaceBatch, swapper: FaceSwapper, size: int) -> Tensor:
    """(N, 2, 3) float64 from picture to crop."""
    points = torch.cat([faces.landmarks5 for faces in batch.images]).double()
    matrices = align_matrix(points, swapper.template, size)
    matrices[:, :, 2] += swapper.offset * size / swapper.size
    return matrices


def _sources(embeddings: Tensor, rows: Sequence[int], options: SwapOptions, batch: FaceBatch) -> Tensor:
    """(N, 512) unit embeddings, one for each face."""
    if options.rows == "blend":
        embeddings = average(embeddings)[1][None]
    source = functional.normalize(embeddings, dim=-1)[list(rows)]
    if options.weight == NEUTRAL or not len(source):
        return source
    known = [faces.embeddings for faces in batch.images if len(faces)]
    targets = [one for one in known if one is not None]
    if len(targets) != len(known) or batch.embedding_encoder != ENCODER:
        raise FaceChoice(
            f"weight {options.weight:g}",
            expected=f"the faces' own embeddings of the encoder {ENCODER}",
            found=f"embeddings of {batch.embedding_encoder}" if targets else "none",
            cure=f"connect the encoder {ENCODER}, or set weight to {NEUTRAL:g}",
        )
    target = functional.normalize(torch.cat(targets), dim=-1)
    # Mixed before the map of `latents`, so that both are numbers of one kind; facefusion mixes after it.
    return functional.normalize(balance(source, target, options.weight), dim=-1)


def _check(images: Tensor, batch: FaceBatch, options: SwapOptions) -> None:
    size = (int(images.shape[1]), int(images.shape[2]))
    if (len(images), size) != (len(batch), batch.image_size):
        raise BadImage(
            "pictures and faces",
            expected=f"the {len(batch)} pictures of {batch.image_size[1]} x {batch.image_size[0]} with these faces",
            found=f"{len(images)} of {size[1]} x {size[0]}",
            cure="connect the pictures that went into the face detector",
        )
    if options.rows not in ROWS or options.boost < 1:
        raise FaceChoice(
            "swap options",
            expected=f"rows {' or '.join(ROWS)}, and a boost of 1 or more",
            found=f"rows {options.rows!r}, boost {options.boost}",
            cure="choose one of these",
        )
