"""A loaded InstantID (or FaceID-Portrait-unnorm): from raw ArcFace embeddings to face tokens, keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import EncoderMismatch
from ...identity import EMBEDDING, Identity
from ..ip_adapter.projected import ProjectedAdapter, fits

INSTANTID = "instantid"
PORTRAIT_UNNORM = "portrait_unnorm"
EMBEDDING_WIDTH = 512
# Embeddings of different models live in different spaces, whatever their width.
ENCODERS = {INSTANTID: "arcface_antelopev2", PORTRAIT_UNNORM: "arcface_buffalo_l"}


class InstantIDAdapter(ProjectedAdapter):
    """Sixteen tokens from one raw face embedding.

    The embedding is **not** brought to unit length. The unconditional rows get the resampler's result of a zero
    embedding. InstantID's authors use one photo (the largest face); several give their tokens side by side, and an
    averaged identity gives one set.
    """

    def positive(self, identity: Identity) -> Tensor:
        """Raw embeddings (N, 1, 512)."""
        encoder = ENCODERS[str(self.report.variant)]
        embedding = identity.features.get(EMBEDDING)
        if identity.encoder == encoder and embedding is not None and fits(embedding.shape, (None, EMBEDDING_WIDTH)):
            return embedding[:, None]
        raise EncoderMismatch(
            self.report.title,
            expected=f"{EMBEDDING} (N, {EMBEDDING_WIDTH}) of the encoder {encoder}",
            found=f"{identity.shapes} of the encoder {identity.encoder}",
            cure=f"encode the face with the ArcFace encoder of insightface's pack {encoder.removeprefix('arcface_')}",
        )

    def negative(self, identity: Identity, positive: Tensor) -> Tensor:
        """A zero embedding (1, 1, 512)."""
        return torch.zeros_like(positive[:1])
