"""What an adapter learns from: drawn persons, or photographs of several persons, encoded once for a base model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.encoders.base import FaceEncoder
from ..adapters.errors import EncoderMismatch
from ..adapters.identity import EMBEDDING, TOKENS
from ..faces.detect import Progress
from ..faces.shape_masks import shape_masks
from ..faces.types import FaceBatch
from .adapter_base import Base
from .demo.portrait_data import REFERENCE_SIZE, portraits_of
from .drawn_faces import Attributes, IdentityParameters, draw
from .fact.people import BadMaterial, People
from .people_folder import PeopleFolder

Kind = Literal["fact", "faceid"]
FEATURES = {"fact": TOKENS, "faceid": EMBEDDING}
DOWNSCALE = 8
DRAWN_SIZE = 64
AT_ONCE = 4
# Ovals over brows to chin, enlarged: to the face's rim for FAIR, to the hair for encoders that want heads on black.
FACE_OVAL, HEAD_OVAL = 1.15, 1.7


def drawn_material(base: Base, encoder: FaceEncoder, kind: Kind, people: int, each: int, seed: int) -> People:
    """Drawn persons for the drawn faces model, every portrait with a prompt of its own.

    Args:
        base: of `adapter_base.drawn_base`.
        encoder: the face encoder.
        kind: decides which of the encoder's features are kept.
        people: how many persons.
        each: portraits of every one.
        seed: other seeds give other persons.

    Raises:
        BadMaterial: a base model that is not told attributes.
        EncoderMismatch: an encoder without that feature.
    """
    if base.prompt is None:
        raise BadMaterial(
            "drawn faces",
            expected="the drawn faces model",
            found="another base model",
            cure="train on photographs, or leave the base model out",
        )
    identities, attributes = portraits_of(people, each, seed, 0)
    faces = draw(identities, attributes, DRAWN_SIZE)
    with torch.no_grad():
        text = base.prompt(attributes)
    return People(
        latents=_encoded(base, faces.images),
        text=text,
        conditions=_of_drawn(encoder, identities, attributes, kind),
        masks=functional.avg_pool2d(faces.head_mask[:, None], DOWNSCALE)[:, 0],
        persons=torch.arange(people).repeat_interleave(each),
        encoder=encoder.id,
    )


def photo_material(
    photos: PeopleFolder, base: Base, encoder: FaceEncoder, kind: Kind, on_progress: Progress | None = None
) -> People:
    """Photographs as latents, face masks and face conditions.

    Args:
        photos: with portraits whose side is a multiple of 64.
        base: with one prompt for all.
        encoder: the face encoder; one that wants heads on black gets an oval.
        kind: decides which of the encoder's features are kept.
        on_progress: called with photographs done and in all; what it raises stops.

    Raises:
        BadMaterial: a base model without a prompt for photographs.
        EncoderMismatch: an encoder without that feature.
    """
    if base.text is None:
        raise BadMaterial(
            "photographs",
            expected="a base model with a prompt",
            found="the drawn faces model",
            cure="connect an SD1.5 model, its VAE and a prompt, or name a folder of diffusers",
        )
    latents, masks, conditions = [], [], []
    for first in range(0, len(photos.photos), AT_ONCE):
        part = photos.photos[first : first + AT_ONCE]
        images = torch.stack([photo.portrait for photo in part]).float() / 255
        size = (images.shape[1], images.shape[2])
        batch = FaceBatch(tuple(photo.face for photo in part), size, "folder")
        latents.append(_encoded(base, images))
        face, head = (shape_masks(batch, "oval of the points", oval) for oval in (FACE_OVAL, HEAD_OVAL))
        masks.append(functional.avg_pool2d(face[:, None], DOWNSCALE)[:, 0])
        boxes, points = (torch.cat([getattr(photo.face, name) for photo in part]) for name in ("boxes", "landmarks5"))
        conditions.append(_feature(encoder, images, boxes, points, head if encoder.uses_masks else None, kind))
        if on_progress is not None:
            on_progress(first + len(part), len(photos.photos))
    return People(
        latents=torch.cat(latents),
        text=base.text.detach().float().clone(),
        conditions=torch.cat(conditions),
        masks=torch.cat(masks),
        persons=photos.persons,
        encoder=encoder.id,
    )


def _encoded(base: Base, images: Tensor) -> Tensor:
    parts = [base.encode(images[first : first + 64]) for first in range(0, len(images), 64)]
    # Latents of a host may come from its inference mode; gradients need copies.
    return torch.cat([part.detach().float().cpu().clone(memory_format=torch.contiguous_format) for part in parts])


def _of_drawn(encoder: FaceEncoder, identities: IdentityParameters, attributes: Attributes, kind: Kind) -> Tensor:
    faces = draw(identities, attributes, REFERENCE_SIZE)
    masks = faces.head_mask if encoder.uses_masks else None
    return _feature(encoder, faces.images, faces.boxes, faces.landmarks5, masks, kind)


def _feature(
    encoder: FaceEncoder, images: Tensor, boxes: Tensor, points: Tensor, masks: Tensor | None, kind: Kind
) -> Tensor:
    found: list[Tensor] = []
    for first in range(0, len(images), 64):
        rows = slice(first, first + 64)
        given = None if masks is None else masks[rows]
        pictures = images[rows]
        features = encoder.encode_faces(pictures, range(len(pictures)), boxes[rows], points[rows], given)
        if FEATURES[kind] not in features:
            raise EncoderMismatch(
                f"training of {kind}",
                expected=f"an encoder that gives {FEATURES[kind]}",
                found=f"{encoder.title}, which gives {' and '.join(features)}",
                cure="load a TransFace encoder for FACT, an ArcFace encoder for FaceID",
            )
        found.append(features[FEATURES[kind]].float().cpu().clone())
    return torch.cat(found)
