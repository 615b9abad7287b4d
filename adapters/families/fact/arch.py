"""The networks of FaceChain-FACT. Attribute names are the checkpoint's key names, so do not rename them.

Files followed: ``face_adapter/face_adapter_v1.py`` and ``face_attention_processor_v1.py`` of modelscope/facechain, and
for the first generation ``face_adapter.py`` of that repository's history. Quirk the checkpoints depend on: the
resampler is 1024 wide while its attention is 768 wide (12 heads of 64).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...layers import casting
from ...layers.gated_attention import GatedSelfAttention
from ...layers.module_tree import place_module
from ...layers.perceiver import Resampler

FaceResampler = Resampler

HEAD_DIM = 64
LAYER_HEADS = 8


class FirstProjector(nn.Module):
    """The projector of the first generation ("v0"): mixes tokens, widens channels, normalises each token.

    Args:
        tokens_in: tokens of the encoder (144).
        tokens_out: tokens for the gated layers (196).
        width_in: channels of the encoder's tokens (512).
        width_out: channels of the face tokens (768).
    """

    def __init__(self, tokens_in: int, tokens_out: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.net = nn.Linear(tokens_in, tokens_out)
        self.feature = nn.Sequential(nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(tokens_out))

    def forward(self, x: Tensor) -> Tensor:
        """Encoder tokens (B, tokens_in, width_in) give (B, tokens_out, width_out)."""
        return self.feature(self.net(x.transpose(1, 2)).transpose(1, 2))


class FactNetwork(nn.Module):
    """Projector and gated layers under the names of the published file.

    The projector is ``local_fac_prj``; the layer of block ``p`` is ``{p}.attn2.processor``.

    Args:
        projector: a `FaceResampler` or a `FirstProjector`.
        layers: gated layers by diffusers block path.
    """

    local_fac_prj: nn.Module

    def __init__(self, projector: nn.Module, layers: Mapping[str, GatedSelfAttention]) -> None:
        super().__init__()
        self.local_fac_prj = projector
        for path, layer in layers.items():
            place_module(self, f"{path}.attn2.processor", layer)


def gated_layer(width: int, context_dim: int, operations: Any = casting) -> GatedSelfAttention:
    """The gated layer of one block; ``width`` is divisible by the 8 heads."""
    return GatedSelfAttention(width, context_dim, LAYER_HEADS, width // LAYER_HEADS, operations)
