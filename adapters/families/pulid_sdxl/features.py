"""What PuLID asks of an identity: the raw ArcFace embedding of antelopev2 and the features of EVA-CLIP."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import EncoderMismatch
from ...identity import EMBEDDING, EVA_HIDDEN, EVA_POOLED, Identity
from .arch import SCALES

# The recognition model PuLID was trained with; embeddings of other ArcFace models live in other spaces.
ENCODER = "arcface_antelopev2"
EMBEDDING_DIM = 512


def pulid_features(
    identity: Identity, title: str, id_dim: int, image_dim: int, device: torch.device
) -> tuple[Tensor, list[Tensor]]:
    """Face vectors (N, id_dim) and five picture features (N, S, image_dim) of an identity, float32, on ``device``.

    The embedding stays as the encoder gives it (not of unit length), the picture vector has unit length.

    Args:
        identity: N photos.
        title: the adapter's name, for the message.
        id_dim: channels of the face vector, both parts together (1280).
        image_dim: channels of the picture features (1024).
        device: where to.

    Raises:
        EncoderMismatch: a feature is missing, of another width, or of another encoder.
    """
    wanted: dict[str, tuple[int | None, ...]] = {
        EMBEDDING: (None, EMBEDDING_DIM),
        EVA_POOLED: (None, id_dim - EMBEDDING_DIM),
        EVA_HIDDEN: (None, SCALES, None, image_dim),
    }
    if identity.encoder != ENCODER or not all(_fits(identity, name, shape) for name, shape in wanted.items()):
        raise _mismatch(identity, title, wanted)
    embedding, pooled, hidden = (identity.features[name].to(device, torch.float32) for name in wanted)
    return torch.cat((embedding, pooled), dim=-1), list(hidden.unbind(1))


def _fits(identity: Identity, name: str, wanted: tuple[int | None, ...]) -> bool:
    tensor = identity.features.get(name)
    if tensor is None or tensor.ndim != len(wanted):
        return False
    return all(size in (None, got) for got, size in zip(tensor.shape, wanted, strict=True))


def _mismatch(identity: Identity, title: str, wanted: dict[str, tuple[int | None, ...]]) -> EncoderMismatch:
    names = {0: "N", 2: "S"}
    expected = ", ".join(
        f"{name} ({', '.join(names.get(i, 'N') if size is None else str(size) for i, size in enumerate(shape))})"
        for name, shape in wanted.items()
    )
    return EncoderMismatch(
        title,
        expected=f"{expected} of the encoder {ENCODER}",
        found=f"{identity.shapes} of the encoder {identity.encoder}",
        cure="make the identity with 'Encode Identity for PuLID', antelopev2 and EVA02-CLIP-L-14-336 connected",
    )
