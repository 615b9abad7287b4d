"""Portraits of many persons, encoded once, in parts that can be made side by side.

Latents, prompts and face masks train the base model; the encoder's tokens of every portrait train the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...adapters.encoders.transface.arch import TransFace
from ..drawn_faces import Attributes, IdentityParameters, draw, sample_identities
from ..seeds import generator_for
from .autoencoder import DOWNSCALE, Autoencoder
from .portraits import portrait_attributes
from .recognition import encoder_crops

REFERENCE_SIZE = 96
TOGETHER = 64


def portraits_of(people: int, each: int, seed: int, part: int) -> tuple[IdentityParameters, Attributes]:
    """Who is on the portraits of one part, and how: ``people * each`` rows, those of a person one after the other."""
    generator = generator_for(seed, "portraits", part)
    identities = sample_identities(people, generator).repeated(each)
    return identities, portrait_attributes(len(identities), generator)


def encode_portraits(
    autoencoder: Autoencoder, identities: IdentityParameters, attributes: Attributes, size: int
) -> dict[str, Tensor]:
    """``latents`` (N, 4, h, w), ``masks`` (N, h, w) shares of face and hair, and ``attributes`` (N, A)."""
    latents, masks = [], []
    for first in range(0, len(identities), TOGETHER):
        rows = slice(first, first + TOGETHER)
        faces = draw(identities.rows(rows), attributes.rows(rows), size)
        with torch.no_grad():
            latents.append(autoencoder.encode(faces.images).contiguous())
        masks.append(functional.avg_pool2d(faces.head_mask[:, None], DOWNSCALE)[:, 0])
    return {"latents": torch.cat(latents), "masks": torch.cat(masks), "attributes": attributes.values}


def encode_references(encoder: TransFace, identities: IdentityParameters, attributes: Attributes) -> Tensor:
    """(N, S, D) float16: the encoder's tokens of each portrait's own head on black."""
    tokens = []
    for first in range(0, len(identities), TOGETHER):
        rows = slice(first, first + TOGETHER)
        faces = draw(identities.rows(rows), attributes.rows(rows), REFERENCE_SIZE)
        crops = encoder_crops(faces.images * faces.head_mask[..., None], faces.landmarks5)
        with torch.no_grad():
            tokens.append(encoder.tokens(crops).half())
    return torch.cat(tokens)


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The parts one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
