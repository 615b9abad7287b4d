"""Face maps of ID-Animator (He et al. 2024, arXiv:2404.15275); the resampler is the shared one of `layers.perceiver`.

Attribute names are the checkpoint's key names: ``to_k_face to_v_face``. Follows ``faceadapter/resampler.py`` and
``faceadapter/attention_processor.py`` of the authors' code.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...layers import casting
from ...layers.perceiver import Resampler

HEAD_DIM = 64


class FaceMaps(nn.Module):
    """The extra key and value maps of one attn2 layer, without bias.

    Args:
        context_dim: channels of a face token.
        width: channels of the layer.
        operations: namespace with Linear.
    """

    def __init__(self, context_dim: int, width: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.to_k_face = operations.Linear(context_dim, width, bias=False)
        self.to_v_face = operations.Linear(context_dim, width, bias=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Face tokens (B, T, context_dim) give keys and values, each (B, T, width)."""
        return self.to_k_face(tokens), self.to_v_face(tokens)


class IDAnimatorNetwork(nn.Module):
    """Resampler and face maps, in one place for the memory manager.

    Args:
        resampler: learned facial queries over CLIP patches, in float32.
        image_dim: channels of a CLIP patch.
        maps: the face maps of each attn2 layer, in file order.
    """

    def __init__(self, resampler: Resampler, image_dim: int, maps: list[FaceMaps]) -> None:
        super().__init__()
        self.resampler = resampler
        self.image_dim = image_dim
        self.maps = nn.ModuleList(maps)
