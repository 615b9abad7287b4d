"""The vision transformer of TransFace (ICCV 2023, official repository DanJun6737/TransFace, backbones/vit.py).

Module names are those of the published checkpoints. Sizes S, B and L differ in width and depth only. The vision
transformer of insightface's arcface_torch is the same network without the gate (`senet`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 112
# The trainers wrote 2e-5 for the head's batch norms; the layer norms keep torch's 1e-5.
HEAD_NORM_EPS = 2e-5


@dataclass(frozen=True)
class TransFaceConfig:
    """Sizes of one network.

    Attributes:
        width: D, channels of a token.
        depth: number of transformer blocks.
        patch: side of a square patch, and its stride, in pixels.
        embedding: width of the identity embedding.
        heads: attention heads; no tensor shows it, all official configurations have 8.
        hidden: width inside the MLP.
        gated: whether the SE gate over the tokens (`senet`) exists.
    """

    width: int
    depth: int
    patch: int = 9
    embedding: int = 512
    heads: int = 8
    hidden: int = 0
    gated: bool = True

    @property
    def tokens(self) -> int:
        """Number of patches of a 112 px picture; the rows and columns that do not fill a patch are never read."""
        return (IMAGE_SIZE // self.patch) ** 2


class TransFaceOutput(NamedTuple):
    """What the network says about N faces of T patches.

    Attributes:
        embedding: (N, E) identity embedding, not normalised.
        weight: (N, T) softmax over the gates (nearly uniform, as the gates are sigmoids); None without a gate.
        patch_entropy: (N, T) unbiased standard deviation of each gated token (the official name for it).
        tokens: (N, T, D) output of the final layer norm, before the gate; what FACT takes.
    """

    embedding: Tensor
    weight: Tensor | None
    patch_entropy: Tensor
    tokens: Tensor


class PatchEmbed(nn.Module):
    """Pictures (N, 3, 112, 112) to patches (N, T, D), row by row."""

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, kernel_size=config.patch, stride=config.patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over (N, T, D); queries, keys and values have no bias."""

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(attended.transpose(1, 2).reshape(count, tokens, width))


class Mlp(nn.Module):
    """Two linear layers around a ReLU6 over (N, T, D).

    The checkpoints depend on ReLU6: it is the official block's default activation and no configuration changes it.
    """

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        hidden = config.hidden or 4 * config.width
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.relu6(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm transformer block over (N, T, D)."""

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TransFace(nn.Module):
    """Aligned faces (N, 3, 112, 112), RGB in -1..1, to `TransFaceOutput`. For inference: no dropping, no masking."""

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.width, config.tokens
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # read in training only; every file has it
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(tokens * width, width, bias=False),
            nn.BatchNorm1d(width, eps=HEAD_NORM_EPS),
            nn.Linear(width, config.embedding, bias=False),
            nn.BatchNorm1d(config.embedding, eps=HEAD_NORM_EPS),
        )
        if config.gated:
            self.senet = nn.Sequential(
                nn.Linear(tokens * width, tokens, bias=False),
                nn.ReLU(),
                nn.Linear(tokens, tokens, bias=False),
                nn.Sigmoid(),
            )

    def tokens(self, images: Tensor) -> Tensor:
        """Aligned faces (N, 3, 112, 112) to the tokens (N, T, D) after the final layer norm."""
        x = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, images: Tensor) -> TransFaceOutput:
        tokens = self.tokens(images)
        weight, gated = None, tokens
        if self.config.gated:
            gate = self.senet(tokens.flatten(1))
            weight, gated = gate.softmax(dim=-1), tokens * gate.unsqueeze(-1)
        embedding = self.feature(gated.flatten(1))
        return TransFaceOutput(embedding, weight, gated.std(dim=-1), tokens)
