"""CLIP features of faces aligned as ID-Animator's authors do it: the ArcFace crop of 112 pixels, enlarged to 224."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..adapters.encoders.base import FaceEncoder, Which, encode_photos
from ..adapters.family import Licence
from ..adapters.identity import IMAGE_TOKENS, IMAGE_TOKENS_ZERO, Identity
from ..faces.align import crop_faces
from ..faces.detect import OnMissingFace, Progress
from ..faces.resample import resize_pixels, to_pixels
from ..faces.types import FaceBatch
from .clip_vision import image_tokens
from .host import stop_if_cancelled

CROP, PICTURE = 112, 224


class AlignedPictureEncoder(FaceEncoder):
    """The host's CLIP_VISION on aligned faces. Feature: ``image_tokens``; there is no face embedding.

    Args:
        clip_vision: the host's CLIP_VISION value.
    """

    id = "clip_vision"
    title = "CLIP vision on aligned faces"
    licence = Licence(code="MIT", weights="as the CLIP vision file's publisher states", commercial=None)

    def __init__(self, clip_vision: Any) -> None:
        self.clip_vision = clip_vision

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        stop_if_cancelled()
        crops = soft_crops(images, torch.as_tensor(list(index), dtype=torch.long), landmarks5)
        return {IMAGE_TOKENS: image_tokens(self.clip_vision, crops)[0]}


def soft_crops(images: Tensor, index: Tensor, landmarks5: Tensor) -> Tensor:
    """Faces (N, 3, 224, 224), 0..1, as soft as those the adapter was trained on: 112 pixels, enlarged bicubically.

    Args:
        images: (B, H, W, 3), 0..1.
        index: (N,) number of the picture of each face.
        landmarks5: (N, 5, 2) pixels.
    """
    crops = to_pixels(crop_faces(images, index, landmarks5, "arcface", CROP))
    return resize_pixels(crops, PICTURE, PICTURE).float() / 255


def encode_aligned(
    clip_vision: Any,
    images: Tensor,
    faces: FaceBatch,
    which: Which = "best",
    on_missing_face: OnMissingFace = "error",
    on_progress: Progress | None = None,
) -> Identity:
    """The identity of the faces of photos, as ID-Animator takes it; arguments and errors of `encode_photos`."""
    encoder = AlignedPictureEncoder(clip_vision)
    identity = encode_photos(encoder, images, faces, None, which, on_missing_face, on_progress)
    _, zero = image_tokens(clip_vision, torch.zeros(1, 3, PICTURE, PICTURE))
    return replace(identity, features={**identity.features, IMAGE_TOKENS_ZERO: zero})
