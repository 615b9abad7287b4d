"""The networks of PuLID v1 for SDXL. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``pulid/encoders.py`` and ``pulid/attention_processor.py`` of ToTheBeginning/PuLID (Guo et al. 2024,
arXiv:2404.16022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import casting

SCALES = 5


class Mapping(nn.Sequential):
    """Three linear layers with LayerNorm and LeakyReLU (0.01) after the first two: (..., in) -> (..., out).

    Args:
        inputs: channels of the input.
        hidden: channels between the layers.
        outputs: channels of the result.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, operations: Any = nn) -> None:
        super().__init__(
            operations.Linear(inputs, hidden),
            operations.LayerNorm(hidden),
            nn.LeakyReLU(),
            operations.Linear(hidden, hidden),
            operations.LayerNorm(hidden),
            nn.LeakyReLU(),
            operations.Linear(hidden, outputs),
        )


class IDEncoder(nn.Module):
    """PuLID v1: tokens of the face vector, then one token for each scale of the picture features.

    Args:
        id_dim: channels of the face vector, ArcFace and EVA-CLIP together (1280).
        image_dim: channels of the picture features (1024).
        hidden: channels inside the mappings (1024).
        width: channels of a token (2048).
        id_tokens: tokens of the face vector (5).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(
        self, id_dim: int, image_dim: int, hidden: int, width: int, id_tokens: int, operations: Any = nn
    ) -> None:
        super().__init__()
        self.width = width
        self.id_dim = id_dim
        self.image_dim = image_dim
        self.id_tokens = id_tokens
        self.body = Mapping(id_dim, hidden, id_tokens * width, operations)
        for scale in range(SCALES):
            self.add_module(f"mapping_{scale}", Mapping(image_dim, hidden, width, operations))
            self.add_module(f"mapping_patch_{scale}", Mapping(image_dim, hidden, width, operations))

    def forward(self, id_cond: Tensor, hidden: Sequence[Tensor]) -> Tensor:
        """Face vectors (B, id_dim) and five picture features (B, S, image_dim) give (B, id_tokens + 5, width).

        The first of the S tokens is the class token, the others are patches.
        """
        tokens = [self.body(id_cond).unflatten(-1, (self.id_tokens, self.width))]
        for scale, features in enumerate(hidden):
            of_class = self.get_submodule(f"mapping_{scale}")(features[:, :1])
            of_patches = self.get_submodule(f"mapping_patch_{scale}")(features[:, 1:]).mean(dim=1, keepdim=True)
            tokens.append(of_class + of_patches)
        return torch.cat(tokens, dim=1)


class IdentityKeysValues(nn.Module):
    """The identity's key and value maps of one attn2 layer, without bias.

    Args:
        context_dim: channels of a token.
        width: channels of the layer.
        operations: namespace with Linear.
    """

    def __init__(self, context_dim: int, width: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.id_to_k = operations.Linear(context_dim, width, bias=False)
        self.id_to_v = operations.Linear(context_dim, width, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, context_dim) give keys and values, each (B, T, width)."""
        return self.id_to_k(tokens), self.id_to_v(tokens)
