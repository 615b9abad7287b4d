"""The networks of IP-Adapter. Attribute names are the checkpoint's key names, so do not rename them.

Follows ``ip_adapter/ip_adapter.py`` and ``resampler.py`` of tencent-ailab/IP-Adapter (Ye et al. 2023,
arXiv:2308.06721). The resampler of plus and plus-face, and of InstantID, is `adapters.layers.perceiver.Resampler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..ip_adapter_faceid.arch import FaceKeysValues


class ImageProjection(nn.Module):
    """Plain IP-Adapter: one CLIP image embedding to a few tokens: linear, then LayerNorm over each token.

    Args:
        image_dim: channels of the embedding (ViT-H 1024, ViT-bigG 1280).
        tokens: number of tokens (4).
        width: channels of a token, that is of the base model's text context.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, image_dim: int, tokens: int, width: int, operations: Any = nn) -> None:
        super().__init__()
        self.width = width
        self.proj = operations.Linear(image_dim, tokens * width)
        self.norm = operations.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, image_dim) gives (B, tokens, width)."""
        return self.norm(self.proj(embedding).unflatten(-1, (-1, self.width)))


class PatchProjection(nn.Module):
    """Full-face: each CLIP patch to one token: linear, exact GELU, linear, LayerNorm.

    Args:
        image_dim: channels of a patch (1280); the inner layer is as wide.
        width: channels of a token.
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, image_dim: int, width: int, operations: Any = nn) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            operations.Linear(image_dim, image_dim),
            nn.GELU(),
            operations.Linear(image_dim, width),
            operations.LayerNorm(width),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """(B, S, image_dim) gives (B, S, width)."""
        return self.proj(patches)


class ProjectedAttention(nn.Module):
    """A projection to tokens, and the extra keys and values of every attn2, in one place for the memory manager.

    Args:
        image_proj: the projection, in float32.
        keys_values: the extra maps of each attn2 layer in the order of the file.
    """

    def __init__(self, image_proj: nn.Module, keys_values: Sequence[FaceKeysValues]) -> None:
        super().__init__()
        self.image_proj = image_proj
        self.keys_values = nn.ModuleList(keys_values)
