"""Quality scores of pictures by a loaded MUSIQ."""

from __future__ import annotations

import torch
from torch import Tensor

from ..adapters.encoders.musiq.encoder import MusiqEncoder
from ..adapters.errors import EncoderMismatch
from ..faces.images import as_rgb
from .host import stop_if_cancelled
from .loaded_networks import LoadedEncoder
from .reference_features import tensor_digest


def kept_scores(quality: LoadedEncoder, images: Tensor) -> list[float]:
    """`quality_scores` of pictures of any kind the host has, looked at once for as long as they are in use."""
    rgb = as_rgb(images)

    def scores() -> Tensor:
        return torch.tensor(quality_scores(quality, rgb), dtype=torch.float64)

    return [float(score) for score in quality.made.get(("quality", tensor_digest(rgb)), scores, of=images)]


def quality_scores(quality: LoadedEncoder, images: Tensor) -> list[float]:
    """One score for each of the pictures (B, H, W, 3), 0..1.

    Raises:
        EncoderMismatch: an encoder that is not MUSIQ.
        BadImage: pictures that are too small.
    """
    encoder = quality.encoder
    if not isinstance(encoder, MusiqEncoder):
        raise EncoderMismatch(
            "picture quality",
            expected="MUSIQ (musiq_koniq_ckpt-e95806b9.pth)",
            found=encoder.title,
            cure="put that file into models/face_encoders and choose it in Load Face Encoder",
        )
    found: list[float] = []
    for image in images:
        stop_if_cancelled()
        if quality.managed is not None:
            quality.managed.load()
        found += encoder.scores(image[None])
    return found
