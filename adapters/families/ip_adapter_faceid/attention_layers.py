"""The attention of a file with LoRA (FaceID, UnAvgLip): modules with the file's names, then taken apart for use."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...adapter import LowRank
from ...layers import casting
from .arch import FaceKeysValues, LowRankWeights
from .layout import PROJECTIONS


def attention_layer(index: int, width: int, context: int, rank: int | None) -> nn.Module:
    """The module of attention ``index`` (odd: attn2), with the published names.

    Args:
        index: counts attn1 and attn2 in file order.
        width: channels of the layer.
        context: channels of a token.
        rank: of the LoRA, or None where the file has none.
    """
    crosses = bool(index % 2)
    layer: nn.Module = FaceKeysValues(context, width, casting) if crosses else nn.Module()
    for name in PROJECTIONS if rank else ():
        inputs = context if crosses and name in ("to_k", "to_v") else width
        layer.add_module(f"{name}_lora", LowRankWeights(inputs, rank or 0, width))
    return layer


def taken_apart(attention: nn.ModuleDict) -> tuple[list[FaceKeysValues], dict[tuple[int, str], LowRank]]:
    """Keys and values for the network; the LoRA as plain tensors, since the host merges it into the base model."""
    keys_values: list[FaceKeysValues] = []
    low_rank: dict[tuple[int, str], LowRank] = {}
    for index, layer in attention.items():
        for name in PROJECTIONS:
            weights: Any = layer._modules.pop(f"{name}_lora", None)
            if weights is not None:
                role = name.removeprefix("to_")
                low_rank[int(index), role] = LowRank(weights.up.weight.detach(), weights.down.weight.detach())
        if isinstance(layer, FaceKeysValues):
            keys_values.append(layer)
    return keys_values, low_rank
