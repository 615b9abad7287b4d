"""From pictures, with or without found faces, to an identity of CLIP features: what IP-Adapter takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..adapters.encoders.base import Which, encode_photos
from ..adapters.identity import IMAGE_TOKENS_ZERO, Identity
from ..faces.detect import OnMissingFace, Progress
from ..faces.images import as_rgb
from ..faces.types import FaceBatch, Faces
from .clip_vision import PictureEncoder, zero_tokens


def encode_pictures(
    clip_vision: Any,
    images: Tensor,
    faces: FaceBatch | None = None,
    which: Which = "best",
    on_missing_face: OnMissingFace = "error",
    margin: float = 0.0,
    on_progress: Progress | None = None,
) -> Identity:
    """Encode whole pictures, or the squares around their faces.

    Args:
        clip_vision: the host's CLIP_VISION value.
        images: (B, H, W, 3), 0..1.
        faces: the faces of these pictures; None encodes each picture as a whole.
        which, on_missing_face, on_progress: see `adapters.encoders.base.encode_photos`.
        margin: border around a face's box as a part of its longer side.

    Raises:
        NoFaceFound, BadImage, FaceChoice: see `adapters.encoders.base.encode_photos`.
        EncoderMismatch: the value is no CLIP vision model of the usual kind.
    """
    images = as_rgb(images)
    encoder = PictureEncoder(clip_vision, None if faces is None else margin)
    batch = whole_pictures(images) if faces is None else faces
    identity = encode_photos(encoder, images, batch, None, which, on_missing_face, on_progress)
    return replace(identity, features={**identity.features, IMAGE_TOKENS_ZERO: zero_tokens(clip_vision)})


def whole_pictures(images: Tensor) -> FaceBatch:
    """One box for each picture (B, H, W, 3): the picture itself."""
    height, width = int(images.shape[1]), int(images.shape[2])
    whole = Faces(torch.tensor([[0.0, 0.0, width, height]]), torch.zeros(1, 5, 2), torch.ones(1))
    return FaceBatch((whole,) * len(images), (height, width), "whole picture")


def encoded_previews(images: Tensor, faces: FaceBatch | None, which: Which, margin: float, size: int) -> Tensor:
    """What `encode_pictures` looks at (N, size, size, 3), 0..1: the middle squares of whole pictures, or of faces."""
    images = as_rgb(images)
    batch = whole_pictures(images) if faces is None else faces
    encoder = PictureEncoder(None, 0.0 if faces is None else margin)
    chosen = [(number, one if which == "all" else one.take(range(min(1, len(one)))))
              for number, one in enumerate(batch.images)]  # fmt: skip
    index = [number for number, one in chosen for _ in range(len(one))]
    crops = encoder.crops(images, index, torch.cat([one.boxes for _, one in chosen]))
    small = [interpolate(crop.movedim(-1, 0)[None], (size, size), mode="area") for crop in crops]
    return torch.cat(small).movedim(1, -1)
