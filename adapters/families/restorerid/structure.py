"""The structure encoder: a half UNet over the damaged picture's latent that knows the timestep.

Attribute names are the checkpoint's key names. Follows StableSR's ``EncoderUNetModelWT`` as RestorerID uses it. Quirks
the checkpoints depend on: the features are the tensors just before each downsampling and the middle block's result; no
attention at the deepest level; four heads, with each head's queries, keys and values side by side (the legacy order).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...layers import casting
from ...layers.casting_conv import Conv1d, Conv2d, GroupNorm32

HEADS = 4
MULTIPLES = (1, 1, 2, 2)
BLOCKS_PER_LEVEL = 2
PERIOD = 10000.0


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Timesteps (B,) give (B, width) float32: cosines, then sines."""
    half = width // 2
    ranks = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(PERIOD) * ranks / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    """Residual block with a timestep: x (B, in, H, W) and emb (B, embedding) give (B, out, H, W)."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm32(inputs), nn.SiLU(), Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), casting.Linear(embedding, outputs))
        self.out_layers = nn.Sequential(
            GroupNorm32(outputs), nn.SiLU(), nn.Dropout(0.0), Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection: nn.Module = nn.Identity() if inputs == outputs else Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class AttentionBlock(nn.Module):
    """Self-attention over places: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm32(channels)
        self.qkv = Conv1d(channels, 3 * channels, 1)
        self.proj_out = Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        # Legacy order: (head, q k v, channel).
        q, k, v = self.qkv(self.norm(flat)).unflatten(1, (HEADS, 3, -1)).unbind(2)
        scale = q.shape[2] ** -0.25
        weights = ((q * scale).transpose(2, 3) @ (k * scale)).float().softmax(-1).to(v)
        out = (v @ weights.transpose(2, 3)).flatten(1, 2)
        return (flat + self.proj_out(out)).view_as(x)


class Downsample(nn.Module):
    """Halves the sides, rounding up: (B, C, H, W) -> (B, C, (H + 1) // 2, (W + 1) // 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Block(nn.Sequential):
    """Layers in a row, of which residual blocks get the timestep."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x

    @property
    def downsamples(self) -> bool:
        """Whether this is the step to the next level."""
        return isinstance(self[0], Downsample)


class StructureEncoder(nn.Module):
    """Latents and timesteps to four structure maps.

    Args:
        channels: of the first level (256).
        labels: channels of each map (256).
        latents: channels of a latent (4).
    """

    def __init__(self, channels: int = 256, labels: int = 256, latents: int = 4) -> None:
        super().__init__()
        self.channels = channels
        embedding = 4 * channels
        self.time_embed = nn.Sequential(
            casting.Linear(channels, embedding), nn.SiLU(), casting.Linear(embedding, embedding)
        )
        self.input_blocks, widths = _input_blocks(channels, latents, embedding)
        last = widths[-1]
        self.middle_block = Block(
            ResBlock(last, last, embedding), AttentionBlock(last), ResBlock(last, last, embedding)
        )
        self.fea_tran = nn.ModuleList(ResBlock(width, labels, embedding) for width in widths)

    def forward(self, latents: Tensor, timesteps: Tensor) -> list[Tensor]:
        """Latents (B, 4, H, W) as the UNet sees them and timesteps (B,) give maps (B, labels, h, w), finest first."""
        emb = self.time_embed(timestep_embedding(timesteps, self.channels).to(latents))
        found: list[Tensor] = []
        h = latents
        for block in self.input_blocks:
            assert isinstance(block, Block)
            if block.downsamples:
                found.append(h)
            h = block(h, emb)
        found.append(self.middle_block(h, emb))
        return [transform(feature, emb) for transform, feature in zip(self.fea_tran, found, strict=True)]


def _input_blocks(channels: int, latents: int, embedding: int) -> tuple[nn.ModuleList, Sequence[int]]:
    """The blocks, and the width of each level."""
    widths = [channels * multiple for multiple in MULTIPLES]
    blocks = nn.ModuleList([Block(Conv2d(latents, channels, 3, padding=1))])
    width = channels
    for level, outputs in enumerate(widths):
        deepest = level == len(widths) - 1
        for _ in range(BLOCKS_PER_LEVEL):
            layers: list[nn.Module] = [ResBlock(width, outputs, embedding)]
            blocks.append(Block(*layers, *([] if deepest else [AttentionBlock(outputs)])))
            width = outputs
        if not deepest:
            blocks.append(Block(Downsample(width)))
    return blocks, widths
