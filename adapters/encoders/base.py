"""What every face encoder is, and the way from photos with found faces to an `Identity`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from ...faces.align import crop_faces
from ...faces.detect import OnMissingFace, Progress, numbered
from ...faces.errors import BadImage, BadMask, FaceChoice, NoFaceFound
from ...faces.images import as_rgb
from ...faces.masks import as_mask
from ...faces.types import FaceBatch, Faces
from ..identity import EMBEDDING, Identity

if TYPE_CHECKING:
    from ..family import Licence

Which = Literal["best", "all"]

# Bounds the memory of crops and activations; larger batches gain little.
FACES_AT_ONCE = 8
# A head mask darker than this at a point of the face hides it.
SEEN = 0.1


class FaceEncoder(ABC):
    """Turns aligned faces into numbers that say who they are. Its weights never change after construction.

    Attributes:
        id: written into every `Identity`; adapters and thresholds refer to it.
        title: name for users.
        licence: of code and weights.
        network: the module for the host's memory manager, or None where another library owns the weights.
        uses_masks: whether head masks reach the network; encoders trained on whole pictures ignore them.
        unmasked_note: sentence for the report when an encoder that uses masks gets none.
        notes: sentences about the loaded weights for the report.
    """

    id: str
    title: str
    licence: Licence
    network: nn.Module | None = None
    uses_masks: bool = False
    unmasked_note: str = ""
    notes: tuple[str, ...] = ()

    @abstractmethod
    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """Encode N faces.

        Args:
            images: (B, H, W, 3) RGB, 0..1.
            index: N image numbers, one for each face.
            boxes: (N, 4) pixels.
            landmarks5: (N, 5, 2) pixels.
            masks: (B, H, W) head masks, 0..1, or None.

        Returns:
            float32 CPU tensors by feature name, the first dimension being N; encoders of persons give ``embedding``
            (N, D), not normalised.
        """


class NetworkEncoder(FaceEncoder):
    """A face encoder whose weights are a module of torch.

    Args:
        identifier, title, licence, notes: see `FaceEncoder`.
        network: put into evaluation mode, without gradients.
    """

    network: nn.Module

    def __init__(
        self, identifier: str, title: str, licence: Licence, network: nn.Module, notes: tuple[str, ...] = ()
    ) -> None:
        self.id = identifier
        self.title = title
        self.licence = licence
        self.network = network.eval().requires_grad_(False)
        self.notes = notes


def chosen_landmarks(face_batch: FaceBatch, which: Which) -> tuple[Tensor, Tensor]:
    """The faces that `encode_photos` encodes: image numbers (N,) and landmarks5 (N, 5, 2), without empty rows."""
    chosen = _choose(face_batch, which)
    return torch.as_tensor(chosen.index, dtype=torch.long), chosen.landmarks5


def chosen_crops(
    images: Tensor, face_batch: FaceBatch, which: Which, on_missing_face: OnMissingFace, size: int
) -> Tensor:
    """Aligned crops (N, 3, size, size) of what `encode_photos` encodes, one for each row of its identity.

    Under ``"keep"`` a picture without a face has a black crop. images: (B, H, W, 3), 0..1.
    """
    index, landmarks5 = chosen_landmarks(face_batch, which)
    crops = crop_faces(images, index, landmarks5, "arcface", size)
    missing = [number for number, count in enumerate(face_batch.counts) if count == 0]
    if on_missing_face != "keep" or not missing:
        return crops
    return _with_empty_rows({"crop": crops}, index.tolist(), missing)[0]["crop"]


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The faces to encode: image number, box and points of each."""

    index: list[int]
    boxes: Tensor
    landmarks5: Tensor


def encode_photos(
    encoder: FaceEncoder,
    images: Tensor,
    face_batch: FaceBatch,
    masks: Tensor | None = None,
    which: Which = "best",
    on_missing_face: OnMissingFace = "error",
    on_progress: Progress | None = None,
) -> Identity:
    """Encode the faces found in photos.

    Args:
        encoder: the network.
        images: (B, H, W, 3) the pictures in which the faces were found.
        face_batch: one entry for each picture.
        masks: head masks as `faces.masks.as_mask` takes them (another size is stretched), or None.
        which: ``"best"`` takes the first face of each picture, ``"all"`` takes every face in order.
        on_missing_face: ``"error"`` stops; ``"skip"`` leaves the picture out; ``"keep"`` gives it one row of zeros in
            every feature, so that with ``which="best"`` N equals the number of pictures. Both are noted.
        on_progress: called with (faces done, faces in all) after each chunk; may raise to cancel.

    Raises:
        NoFaceFound: by policy, or when no picture has a face (zeros alone are nobody).
        BadImage: pictures and faces do not belong together.
        BadMask: see `faces.masks.as_mask`; or a face that the mask hides from an encoder that uses it.
        FaceChoice: an unknown ``which`` or policy.
    """
    _check_policy(which, on_missing_face)
    images = pictures_of_faces(images, face_batch)
    count, height, width, _ = images.shape
    masks = None if masks is None else as_mask(masks, count, height, width, what="head mask")
    missing = [number for number, count in enumerate(face_batch.counts) if count == 0]
    if missing and (on_missing_face == "error" or len(missing) == len(face_batch)):
        raise _no_face(missing, len(face_batch))
    chosen = _choose(face_batch, which)
    if masks is not None and encoder.uses_masks:
        _check_heads(masks, chosen)
    features = _encode_in_chunks(encoder, images, chosen, masks, on_progress)
    owners = list(chosen.index)
    if on_missing_face == "keep" and missing:
        features, owners = _with_empty_rows(features, owners, missing)
    hashes = {number: photo_hash(images[number]) for number in sorted(set(owners))}
    return Identity(
        encoder=encoder.id,
        features=features,
        photos=tuple(hashes[number] for number in owners),
        masked=masks is not None and encoder.uses_masks,
        notes=encoder.notes + _missing_notes(missing, on_missing_face) + _mask_notes(encoder, masks),
    )


def with_embeddings(
    face_batch: FaceBatch, images: Tensor, encoder: FaceEncoder, on_progress: Progress | None = None
) -> FaceBatch:
    """Return the faces with each one's embedding, for selection by a reference person.

    Pictures without a face stay as they are. images: (B, H, W, 3). Masks play no part, so that a reference and a
    crowd are encoded alike.
    """
    images = pictures_of_faces(images, face_batch)
    if not any(face_batch.counts):
        return replace(face_batch, embedding_encoder=encoder.id)
    chosen = _choose(face_batch, "all")
    features = _encode_in_chunks(encoder, images, chosen, None, on_progress)
    if EMBEDDING not in features:
        raise FaceChoice(
            "selection by person",
            expected="an encoder of persons, which gives an embedding",
            found=f"{encoder.title}, which gives {', '.join(features)}",
            cure="load an ArcFace or dlib encoder for the selection",
        )
    rows = features[EMBEDDING].split(list(face_batch.counts))
    found = (
        replace(faces, embeddings=part) if len(faces) else faces
        for faces, part in zip(face_batch.images, rows, strict=True)
    )
    return replace(face_batch, images=tuple(found), embedding_encoder=encoder.id)


def photo_hash(image: Tensor) -> str:
    """sha256 of a picture's height, width and 8-bit pixels; image (H, W, 3), 0..1."""
    pixels = (image.detach().to("cpu", torch.float32) * 255).round().clamp(0, 255).to(torch.uint8).contiguous()
    sha = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    sha.update(pixels.numpy().tobytes())
    return sha.hexdigest()


def masked_images(images: Tensor, masks: Tensor) -> Tensor:
    """Set the background of (B, H, W, 3) to black by head masks (B, H, W)."""
    return images * masks.to(images).unsqueeze(-1)


def pictures_of_faces(images: Tensor, face_batch: FaceBatch) -> Tensor:
    """The pictures (B, H, W, 3) in which the faces were found, of pictures (B, H, W, C) as a user connects them.

    Raises:
        BadImage: as `faces.images.as_rgb` does, or where number or size are not those of the faces.
    """
    images = as_rgb(images)
    found = (int(images.shape[0]), (int(images.shape[1]), int(images.shape[2])))
    if found != (len(face_batch), face_batch.image_size):
        raise BadImage(
            "pictures and faces",
            expected=f"the {len(face_batch)} pictures of {_size(face_batch.image_size)} in which the faces were found",
            found=f"{found[0]} of {_size(found[1])}",
            cure="connect the pictures that went into the face detector",
        )
    return images


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]} pixels"


def _choose(face_batch: FaceBatch, which: Which) -> _Chosen:
    index: list[int] = []
    parts: list[Faces] = []
    for number, faces in enumerate(face_batch.images):
        taken = faces if which == "all" else faces.take(range(min(1, len(faces))))
        index += [number] * len(taken)
        parts.append(taken)
    return _Chosen(index, torch.cat([part.boxes for part in parts]), torch.cat([part.landmarks5 for part in parts]))


def _check_heads(masks: Tensor, chosen: _Chosen) -> None:
    """Refuse masks (B, H, W) that are black at all points of a face: inverted or empty ones would encode darkness."""
    limit = torch.tensor([masks.shape[2] - 1, masks.shape[1] - 1])
    for number, points in zip(chosen.index, chosen.landmarks5.cpu(), strict=True):
        x, y = torch.minimum(points.round().long().clamp(min=0), limit).unbind(-1)
        if bool((masks[number].cpu()[y, x] < SEEN).all()):
            raise BadMask(
                f"head mask, image {number} (counted from 0)",
                expected="white over the face that is encoded",
                found="black at its eyes, nose and mouth",
                cure="invert the mask, give one for this head, or disconnect it",
            )


def _encode_in_chunks(
    encoder: FaceEncoder, images: Tensor, chosen: _Chosen, masks: Tensor | None, on_progress: Progress | None
) -> dict[str, Tensor]:
    used = masks if encoder.uses_masks else None
    total, done = len(chosen.index), 0
    chunks: list[Mapping[str, Tensor]] = []
    while done < total:
        part = slice(done, done + FACES_AT_ONCE)
        index, boxes, landmarks5 = chosen.index[part], chosen.boxes[part], chosen.landmarks5[part]
        with torch.no_grad():
            encoded = encoder.encode_faces(images, index, boxes, landmarks5, used)
        chunks.append({name: tensor.to("cpu", torch.float32) for name, tensor in encoded.items()})
        done = min(done + FACES_AT_ONCE, total)
        if on_progress is not None:
            on_progress(done, total)
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _with_empty_rows(
    features: Mapping[str, Tensor], owners: Sequence[int], missing: Sequence[int]
) -> tuple[dict[str, Tensor], list[int]]:
    """Add a row of zeros for each missing picture and sort all rows by picture, keeping the faces' order."""
    everyone = [*owners, *missing]
    order = sorted(range(len(everyone)), key=everyone.__getitem__)
    padded = {
        name: torch.cat([tensor, tensor.new_zeros(len(missing), *tensor.shape[1:])])[order]
        for name, tensor in features.items()
    }
    return padded, [everyone[row] for row in order]


def _named(missing: Sequence[int]) -> str:
    return f"{numbered('image', missing)} (counted from 0)"


def _check_policy(which: str, on_missing_face: str) -> None:
    for name, value, legal in (
        ("which", which, get_args(Which)),
        ("on_missing_face", on_missing_face, get_args(OnMissingFace)),
    ):
        if value not in legal:
            raise FaceChoice(name, expected=", ".join(legal), found=repr(value), cure="choose one of them")


def _no_face(missing: Sequence[int], count: int) -> NoFaceFound:
    cure = "use clearer pictures or lower the detector's score"
    if len(missing) < count:
        cure += ', or set on_missing_face to "skip" or "keep"'
    return NoFaceFound(
        _named(missing),
        expected="a face to encode in every image",
        found=f"none in {len(missing)} of {count}",
        cure=cure,
    )


def _missing_notes(missing: Sequence[int], policy: OnMissingFace) -> tuple[str, ...]:
    if not missing:
        return ()
    told = "left out" if policy == "skip" else "kept as a row of zeros"
    return (f"no face in {_named(missing)}: {told}",)


def _mask_notes(encoder: FaceEncoder, masks: Tensor | None) -> tuple[str, ...]:
    if masks is None:
        return (encoder.unmasked_note,) if encoder.uses_masks and encoder.unmasked_note else ()
    return () if encoder.uses_masks else (f"mask not used: {encoder.title} was trained on faces with background",)
