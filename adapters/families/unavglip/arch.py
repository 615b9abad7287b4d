"""The identity perceiver of UnAvgLip. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``train_codes/identity_adapter`` of pigmeetsomebody/UnAvgLip. Its ``resampler.py`` is IP-Adapter's resampler.
Its ``identity_perceiver.py`` is no valid Python and names an impossible number of heads; here it is repaired as its
text suggests: the second part of each layer is torch's decoder layer, in which the faces are the target and the
latents the memory, added to the latents. That works for one face, or for as many as there are latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....faces.errors import LikenessError
from ...layers.perceiver import PerceiverAttention, Resampler
from .layout import CONTEXT, DECODER_HEADS, EMBEDDING, HEAD_DIM, PERCEIVER, Sizes


class NumberOfFaces(LikenessError):
    """A number of faces that this projection cannot add up."""


class IdentityPerceiver(nn.Module):
    """The repaired perceiver.

    Args:
        queries: number of tokens.
        depth, heads: of the attention to the faces.
        feed_forward: inner channels of the decoder layers.
    """

    def __init__(self, queries: int, depth: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(1, queries, CONTEXT))
        self.proj_in = nn.Linear(EMBEDDING, CONTEXT)
        self.proj_out = nn.Linear(CONTEXT, CONTEXT)
        self.norm_out = nn.LayerNorm(CONTEXT)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    PerceiverAttention(CONTEXT, heads, HEAD_DIM),
                    nn.TransformerDecoderLayer(CONTEXT, DECODER_HEADS, feed_forward, batch_first=True),
                )
            )
            for _ in range(depth)
        )

    def forward(self, faces: Tensor) -> Tensor:
        """Embeddings (B, N, 512) of N faces give tokens (B, queries, 384).

        Raises:
            NumberOfFaces: N is neither 1 nor the number of queries.
        """
        queries = self.latents.shape[1]
        if faces.shape[1] not in (1, queries):
            raise NumberOfFaces(
                "UnAvgLip's identity perceiver",
                expected=f"1 face or {queries}",
                found=f"{faces.shape[1]}",
                cure=f"give 1 or {queries} photos, or average them with 'Combine Identities'",
            )
        x = self.proj_in(faces)
        q = self.latents.to(x).expand(x.shape[0], -1, -1)
        pairs: list[Any] = list(self.layers)
        for attend, decode in pairs:
            q = attend(x, q) + q
            q = decode(x, q) + q
        return self.norm_out(self.proj_out(q))


def projection_of(sizes: Sizes) -> Resampler | IdentityPerceiver:
    """The projection of a file, weights to come."""
    if sizes.variant == PERCEIVER:
        return IdentityPerceiver(sizes.tokens, sizes.depth, sizes.heads, sizes.feed_forward)
    return Resampler(
        input_dim=EMBEDDING,
        width=CONTEXT,
        output_dim=CONTEXT,
        queries=sizes.tokens,
        depth=sizes.depth,
        heads=sizes.heads,
        head_dim=HEAD_DIM,
        feed_forward=sizes.feed_forward,
    )
