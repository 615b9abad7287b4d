"""A loaded PuLID file for Flux: from an identity to tokens, and what is added after blocks of the transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...adapter import BlockAttentionAdapter, IdentityTokens, TokenOptions, module_device_dtype
from ...identity import Identity
from ...layers.attention import Attention
from ...report import DetectionReport
from ..pulid_sdxl.adapter import of_all_photos
from ..pulid_sdxl.features import pulid_features
from ..pulid_sdxl.id_former import IDFormer
from .arch import IdentityCrossAttention

# One module after every second double block and after every fourth single block, counted from 0.
DOUBLE_STEP, SINGLE_STEP = 2, 4


class PulidFluxAdapter(BlockAttentionAdapter):
    """PuLID for FLUX.1-dev, versions 0.9.0 and 0.9.1.

    Several photos give one set of 32 tokens, as v1.1 for SDXL does (the authors' Flux demo takes one photo). The
    negative rows get the tokens of an identity of zeros, which matters only with a true CFG above 1.

    Args:
        report: what was recognised.
        digest: identifies the file.
        encoder: the identity encoder.
        attentions: one module for each insertion, in the order of the file.
    """

    def __init__(
        self, report: DetectionReport, digest: str, encoder: IDFormer, attentions: Sequence[IdentityCrossAttention]
    ) -> None:
        self.report = report
        self.digest = digest
        self.base = report.base
        self.context_dim = encoder.width
        self.width = attentions[0].width
        self.encoder = encoder.eval().requires_grad_(False)
        self.attentions = tuple(module.eval().requires_grad_(False) for module in attentions)
        # What an identity needs once and what every step needs are disjoint, so that the first can leave the device.
        self.network = nn.ModuleDict(
            {
                "encoder": encoder,
                "identity": nn.ModuleList(nn.ModuleList((module.norm1, module.to_kv)) for module in attentions),
            }
        )
        self.block_network = nn.ModuleList(
            nn.ModuleList((module.norm2, module.to_q, module.to_out)) for module in attentions
        )

    def insertions(self, double_blocks: int, single_blocks: int) -> Sequence[tuple[str, int]]:
        """Double blocks 0, 2, 4, ... and then single blocks 0, 4, 8, ...: ten of each in FLUX.1 (19 and 38 blocks)."""
        return [
            *(("double_block", number) for number in range(0, double_blocks, DOUBLE_STEP)),
            *(("single_block", number) for number in range(0, single_blocks, SINGLE_STEP)),
        ]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Identity tokens (1, 32, 2048) of N photos, in float32.

        Raises:
            EncoderMismatch: features are missing, or of another encoder or width.
        """
        encoder = self.encoder
        device, _ = module_device_dtype(encoder)
        face, hidden = pulid_features(identity, self.report.title, encoder.id_dim, encoder.image_dim, device)
        cond = of_all_photos(encoder, face, hidden)
        if not options.negative:
            return IdentityTokens(cond, None)
        nobody = [torch.zeros_like(features[:1]) for features in hidden]
        return IdentityTokens(cond, encoder(torch.zeros_like(face[:1]), nobody))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, 2048) to keys and values (B, T, inner) of every module, in file order."""
        return [module.keys_values(tokens) for module in self.attentions]

    def added(self, index: int, image: Tensor, k: Tensor, v: Tensor, attend: Attention) -> Tensor:
        """What module ``index`` adds to picture tokens (B, N, width), times the strength."""
        return self.attentions[index](image, k, v, attend)
