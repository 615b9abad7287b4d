"""The IDFormer of PuLID v1.1 (SDXL) and of PuLID for Flux. Attribute names are the checkpoint's key names.

Follows ``pulid/encoders_transformer.py`` of ToTheBeginning/PuLID. Quirks the checkpoints depend on: ``proj_out`` is a
bare (in, out) matrix; the tokens of the face vector are both latents and context; nothing is normalised at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.perceiver import PerceiverLayers
from .arch import SCALES, Mapping

HEAD_DIM = 64


class IDFormer(nn.Module):
    """Learned queries look at the face vector and, scale by scale, at the picture features.

    Args:
        id_dim: channels of the face vector (1280).
        image_dim: channels of the picture features (1024).
        hidden: channels inside the mappings (1024).
        dim: channels inside (1024).
        id_tokens: tokens of the face vector (5).
        queries: number of tokens of the result (32).
        width: channels of the result (2048).
        depth: number of layers, a multiple of 5.
        heads: heads of 64 channels.
        feed_forward: inner channels of each feed-forward.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self,
        *,
        id_dim: int,
        image_dim: int,
        hidden: int,
        dim: int,
        id_tokens: int,
        queries: int,
        width: int,
        depth: int,
        heads: int,
        feed_forward: int,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.id_dim, self.image_dim, self.dim = id_dim, image_dim, dim
        self.id_tokens, self.queries, self.width = id_tokens, queries, width
        self.latents = nn.Parameter(torch.zeros(1, queries, dim))
        self.proj_out = nn.Parameter(torch.zeros(dim, width))
        self.layers = PerceiverLayers(dim, depth, heads, HEAD_DIM, feed_forward, operations)
        for scale in range(SCALES):
            self.add_module(f"mapping_{scale}", Mapping(image_dim, hidden, dim, operations))
        self.id_embedding_mapping = Mapping(id_dim, hidden, id_tokens * dim, operations)

    def forward(self, id_cond: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """One set of tokens (B, queries, width), however many photos.

        Args:
            id_cond: (B, id_dim) face vectors, or (B, photos, id_dim).
            hidden: five picture features (B, S, image_dim); those of several photos stand side by side in S.
        """
        face = self.id_embedding_mapping(id_cond).reshape(id_cond.shape[0], -1, self.dim)
        latents = torch.cat((self.latents.to(face).expand(face.shape[0], -1, -1), face), dim=1)
        pairs: list[Any] = list(self.layers)
        each = len(pairs) // SCALES
        for scale, features in enumerate(hidden):
            context = torch.cat((face, self.get_submodule(f"mapping_{scale}")(features)), dim=1)
            for attend, feed_forward in pairs[scale * each : (scale + 1) * each]:
                latents = attend(context, latents) + latents
                latents = feed_forward(latents) + latents
        return latents[:, : self.queries] @ self.proj_out.to(latents)
