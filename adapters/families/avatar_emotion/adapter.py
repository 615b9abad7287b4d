"""A loaded emotion module: from a picture's latent to tokens, and what is added behind double blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....faces.errors import BadImage
from ...adapter import BlockAttentionAdapter, IdentityTokens, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import Identity
from ...layers.attention import Attention
from ...report import DetectionReport
from .arch import CHANNELS, SIDE, EmotionNetwork
from .layout import EmotionFacts


class AvatarEmotionAdapter(BlockAttentionAdapter):
    """The emotion of a reference picture for HunyuanVideo-Avatar.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the module.
        facts: the file's metadata.
    """

    base = "hunyuan_video"
    apply_node = "'Apply Avatar Emotion'"
    context_dim = 0

    def __init__(self, report: DetectionReport, digest: str, network: EmotionNetwork, facts: EmotionFacts) -> None:
        self.report = report
        self.digest = digest
        self.facts = facts
        self.width = network.sizes.width
        self._parts = network.eval().requires_grad_(False)
        # What a picture needs once and what every step needs are disjoint.
        self.network: nn.Module = nn.ModuleList((network.proj, *(block.to_kv for block in network.attentions)))
        self.block_network: nn.Module = nn.ModuleList(
            nn.ModuleList((block.norm, block.to_q, block.to_out, block.gate)) for block in network.attentions
        )

    def insertions(self, double_blocks: int, single_blocks: int) -> Sequence[tuple[str, int]]:
        """Double blocks 1, 3, 5, ...: those of the audio adapters, ten in a model of the published depth."""
        modules = len(self._parts.attentions)
        return [("double_block", number) for number in range(1, double_blocks, 2)][:modules]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse. Raises EncoderMismatch, which names the node to use instead."""
        raise EncoderMismatch(
            self.report.title,
            expected="a picture of an emotion",
            found=f"an identity of the encoder {identity.encoder}",
            cure=f"use {self.apply_node}",
        )

    def emotion_tokens(self, latents: Tensor) -> Tensor:
        """Scaled latents (1, 16, 1, h, w) of a picture to tokens (1, N, C), in float32.

        Raises:
            BadImage: latents of another model, or smaller than a token.
        """
        device, _ = module_device_dtype(self.network)
        if latents.ndim != 5 or latents.shape[1] != CHANNELS or min(latents.shape[-2:]) < SIDE:
            raise BadImage(
                "emotion picture",
                expected=f"a latent (1, {CHANNELS}, 1, h, w) of HunyuanVideo's VAE",
                found=f"{tuple(latents.shape)}",
                cure="connect the VAE of HunyuanVideo",
            )
        return self._parts.tokens(latents.to(device, torch.float32))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, N, C) to keys and values (B, N, inner) of every module, in file order."""
        return [block.keys_values(tokens) for block in self._parts.attentions]

    def added(self, index: int, image: Tensor, k: Tensor, v: Tensor, attend: Attention) -> Tensor:
        """What module ``index`` adds to video tokens (B, n, width), its gate included, times the strength."""
        return self._parts.attentions[index](image, k, v, attend)
