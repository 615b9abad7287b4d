"""What a loaded face adapter is, seen from the bridge to the host. Families build subclasses; `inject` applies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .identity import Identity

if TYPE_CHECKING:
    from .layers.attention import Attention
    from .layers.gated_attention import GatedSelfAttention
    from .registry import DetectionReport


@dataclass(frozen=True)
class TokenOptions:
    """What a user may choose about the tokens of an identity.

    Attributes:
        shortcut_scale: weight ``s`` of the shortcut of FaceID-PlusV2 (official default 1.0); others ignore it.
        negative: True gives the unconditional rows the family's own negative tokens; False lets the family's term
            skip those rows.
        zero_tokens: PuLID for SDXL: tokens of zeros beside the identity's (official: 8 to 20 with a projection);
            they take attention away, so more of them mean a weaker identity. Others ignore it.
        mix: PuLID v1 with several photos: True takes all tokens of each further photo, False only those of its
            face vector. Others ignore it.
    """

    shortcut_scale: float = 1.0
    negative: bool = True
    zero_tokens: int = 0
    mix: bool = False


@dataclass(frozen=True, eq=False)
class IdentityTokens:
    """The tokens of one identity for one adapter.

    Attributes:
        cond: (1, T, C) for the positive rows.
        uncond: (1, T, C) for the negative rows, or None where nothing is added to them.
    """

    cond: Tensor
    uncond: Tensor | None


@dataclass(frozen=True, eq=False)
class LowRank:
    """A low-rank change of one weight: ``weight += up @ down`` (scale 1, no alpha). up (out, r), down (r, in)."""

    up: Tensor
    down: Tensor


class Adapter(ABC):
    """A face adapter read from a file. Its weights never change after construction.

    Attributes:
        report: what was recognised, for the user.
        network: every module of the adapter, in one place for the host's memory manager.
        digest: identifies the file's content (see `checkpoint.CheckpointHeader`).
        base: ``"sd15"`` or ``"sdxl"``.
        context_dim: width of the base model's text context.
        apply_node: name of the node that applies it.
        step_network: the weights that run beside the model in every step, where `network` holds only the others.
    """

    apply_node: str = "the node made for it"
    step_network: nn.Module | None = None
    report: DetectionReport
    network: nn.Module
    digest: str
    base: str
    context_dim: int

    @abstractmethod
    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Project an identity to this adapter's tokens, on the device and in the dtype of `network`.

        Raises:
            EncoderMismatch: the identity lacks a feature, or has it in another width; names both widths.
        """


class CrossAttentionAdapter(Adapter):
    """Adds a second, identity-driven attention to every text cross-attention (attn2) of a UNet."""

    _low_rank: Mapping[tuple[int, str], LowRank] = MappingProxyType({})

    @property
    @abstractmethod
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer, in the order of the file: down blocks, up blocks, middle block."""

    @abstractmethod
    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project tokens (B, T, C) to one (B, T, width) pair of keys and values per layer, in file order."""

    def low_rank(self) -> Mapping[tuple[int, str], LowRank]:
        """The file's own LoRA (scale 1) by (attention index counting attn1 and attn2 in file order, one of q k v out).

        The same mapping at every call, so that it can be told whether it is in a model already; empty for most files.
        """
        return self._low_rank


class ResidualAttentionAdapter(CrossAttentionAdapter):
    """Adds to every attn2 an attention whose queries are made of the text attention's result, before ``to_out``.

    Queries are linear in that result z and the keys constant, so both maps fold into one: ``keys_values`` gives, for
    each layer, logits' weights (B, heads * T, width) and values spread over the heads (B, heads * T, width). The term
    is ``softmax_T(z @ logits^T) @ values``, with the softmax over the T tokens of each head.
    """


class GatedAttentionAdapter(Adapter):
    """Puts a gated self-attention layer between attn1 and attn2 of every transformer block of a UNet."""

    @property
    @abstractmethod
    def layers(self) -> Mapping[str, GatedSelfAttention]:
        """The layers by diffusers block path, such as ``down_blocks.0.attentions.0.transformer_blocks.0``."""

    @property
    @abstractmethod
    def token_network(self) -> nn.Module:
        """The weights that run once for each identity; those of `layers` run in every step."""


class BlockAttentionAdapter(Adapter):
    """Adds a cross-attention to the picture tokens of a DiT after some of its blocks.

    Attributes:
        width: channels of the DiT's picture tokens.
        block_network: the weights that run in every step; `network` holds those that run once for each identity.
    """

    width: int
    block_network: nn.Module

    @abstractmethod
    def insertions(self, double_blocks: int, single_blocks: int) -> Sequence[tuple[str, int]]:
        """The blocks after which something is added, as ("double_block" or "single_block", number), in file order.

        Its length equals the number of the file's modules where the DiT is the one the file was made for.
        """

    @abstractmethod
    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Project tokens (B, T, C) to one (B, T, inner) pair of keys and values per module, in file order."""

    @abstractmethod
    def added(self, index: int, image: Tensor, k: Tensor, v: Tensor, attend: Attention) -> Tensor:
        """What module ``index`` adds to picture tokens (B, N, width), times the strength."""


def module_device_dtype(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a module's first floating-point parameter (CPU and float32 where it has none)."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32
