"""The projections of DreamFit's SD1.5 encoder. Attribute names are the checkpoint's key names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...layers import casting
from ...layers.module_tree import place_module


class ReferenceKeysValues(nn.Module):
    """Keys and values that another picture's self-attention reads, from the encoder's hidden state.

    Args:
        width: channels of the block.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.ref_to_k = casting.Linear(width, width, bias=False)
        self.ref_to_v = casting.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the block's self-attention (B, N, width) gives keys and values, each (B, N, width)."""
        return self.ref_to_k(x), self.ref_to_v(x)


class ReferenceProjections(nn.Module):
    """All ten pairs under the names of the file.

    Args:
        widths: width by path of the transformer block, in the order in which the host runs the blocks.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self._paths = tuple(widths)
        for path, width in widths.items():
            place_module(self, f"{path}.attn1", ReferenceKeysValues(width))

    def pairs(self) -> list[ReferenceKeysValues]:
        """The layers, in the host's order."""
        found = (self.get_submodule(f"{path}.attn1") for path in self._paths)
        return [layer for layer in found if isinstance(layer, ReferenceKeysValues)]
