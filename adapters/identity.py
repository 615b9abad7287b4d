"""Who a person is, as numbers: the value of the socket LIKENESS_IDENTITY."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import torch
from torch import Tensor

EMBEDDING = "embedding"
TOKENS = "tokens"
IMAGE_TOKENS = "image_tokens"
IMAGE_TOKENS_ZERO = "image_tokens_zero"
EVA_POOLED = "eva_pooled"
EVA_HIDDEN = "eva_hidden"
W_PLUS = "w_plus"
IMAGE_EMBEDS = "image_embeds"


@dataclass(frozen=True, eq=False)
class Identity:
    """The identity features of N faces (usually N photos of one person).

    Attributes:
        encoder: id of the face encoder, such as ``"transface_s"``, ``"dlib_resnet"``, ``"arcface_buffalo_l"``.
        features: float32 tensors on the CPU by name, the first dimension being N:
            ``embedding`` (N, D) as the encoder gives it, not normalised;
            ``tokens`` (N, T, C) local tokens of the encoder;
            ``image_tokens`` (N, 257, 1280) CLIP vision hidden state before the last layer;
            ``image_tokens_zero`` (1, 257, 1280) the same for a picture that is zero after normalisation;
            ``eva_pooled`` (N, 768) EVA-CLIP's picture vector, of length 1;
            ``eva_hidden`` (N, 5, 577, 1024) EVA-CLIP's hidden states after 4, 8, 12, 16 and 20 blocks;
            ``image_embeds`` (N, C) projected CLIP image embeddings; a zero vector is their unconditional version.
        photos: sha256 of each source photo's pixels, for provenance; N entries, or fewer after averaging.
        masked: whether the background was removed before encoding.
        notes: sentences for the report.
    """

    encoder: str
    features: Mapping[str, Tensor]
    photos: tuple[str, ...] = ()
    masked: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", MappingProxyType(dict(self.features)))

    def __len__(self) -> int:
        return int(next(iter(self.features.values())).shape[0])

    @property
    def shapes(self) -> str:
        """Names and shapes of the features, for reports and errors: ``embedding (1, 512), tokens (1, 144, 512)``."""
        told = (f"{name} {tuple(self.features[name].shape)}" for name in sorted(self.features))
        return ", ".join(told) or "no features"

    @cached_property
    def digest(self) -> str:
        """sha256 over the encoder id and all features: equal digests mean equal identities."""
        sha = hashlib.sha256(self.encoder.encode("utf-8"))
        for name in sorted(self.features):
            tensor = self.features[name].detach().to("cpu", torch.float32).contiguous()
            sha.update(f"{name}{tuple(tensor.shape)}".encode())
            sha.update(tensor.numpy().tobytes())
        return sha.hexdigest()
