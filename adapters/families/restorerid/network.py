"""Every network of a RestorerID file, in one place for the host's memory manager."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..ip_adapter_faceid.arch import FaceKeysValues, PlusProjection
from .arch import IDBalance, Spade
from .structure import StructureEncoder

Pair = tuple[Tensor, Tensor]


class BlockModulations(nn.Module):
    """Both modulations of one residual block.

    Args:
        channels: of the block's result.
        labels: channels of a structure map.
        hidden: channels inside the modulations.
        context_dim: channels of a reference token.
    """

    def __init__(self, channels: int, labels: int, hidden: int, context_dim: int) -> None:
        super().__init__()
        self.spade = Spade(channels, labels, hidden)
        self.IDBalance = IDBalance(channels, labels, hidden, context_dim)

    @property
    def channels(self) -> int:
        """Channels of the block's result."""
        return self.spade.channels


class RestorerNetwork(nn.Module):
    """Structure encoder, modulations, keys and values of the reference, and the projection of its tokens.

    Args:
        structure: the structure encoder.
        blocks: modulations by the name of their residual block, such as ``input_blocks.1.0``.
        keys_values: the extra maps of each attn2 in the order down, up, middle.
        projection: FaceID-Plus projection in float32, or None where the file has none.
    """

    def __init__(
        self,
        structure: StructureEncoder,
        blocks: Mapping[str, BlockModulations],
        keys_values: Sequence[FaceKeysValues],
        projection: PlusProjection | None,
    ) -> None:
        super().__init__()
        self.structure = structure
        # A module's name has no dot.
        self.blocks = nn.ModuleDict({name.replace(".", "-"): block for name, block in blocks.items()})
        self.keys_values = nn.ModuleList(keys_values)
        self.projection = projection

    def named_blocks(self) -> Iterator[tuple[str, BlockModulations]]:
        """Name of each residual block, and its modulations."""
        for name, block in self.blocks.items():
            assert isinstance(block, BlockModulations)
            yield name.replace("-", "."), block

    def reference_layers(self) -> list[FaceKeysValues]:
        """The extra maps of each attn2."""
        return [layer for layer in self.keys_values if isinstance(layer, FaceKeysValues)]

    @torch.no_grad()
    def constant_blocks(self) -> frozenset[str]:
        """Blocks whose FIR-Adapter is the same for every picture and reference."""
        return frozenset(name for name, block in self.named_blocks() if block.IDBalance.is_constant())
