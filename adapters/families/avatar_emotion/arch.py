"""The audio emotion module of HunyuanVideo-Avatar (Chen et al. 2025, arXiv:2505.20156), as the paper describes it.

From the paper: the emotion picture goes through the video VAE and a fully connected layer, which gives keys and values;
video tokens are the queries of a spatial cross-attention; a learnt scalar weighs its result,
``z + gate * attention(z, FC(E))``; all of it in the double blocks, where single blocks transfer emotion badly. The
authors released neither code nor weights: widths, heads, the norm of the queries, and that the module stands behind the
same double blocks as the audio adapters, are this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...layers.attention import Attention, attention
from ...layers.casting import LayerNorm, Linear

# Cells of a latent in one token, as the DiT's own patches.
SIDE = 2
CHANNELS = 16


@dataclass(frozen=True)
class EmotionSizes:
    """Widths.

    Attributes:
        width: channels of the DiT's tokens.
        inner: width of all heads together.
        heads: number of heads.
        emotion_width: channels of an emotion token.
        modules: how many; number j stands behind double block ``2 j + 1``.
    """

    width: int = 3072
    inner: int = 1024
    heads: int = 8
    emotion_width: int = 1024
    modules: int = 10


def patches(latents: Tensor) -> Tensor:
    """Latents (B, 16, T, h, w) to their patches (B, T * h/2 * w/2, 64); an odd last row or column is left out."""
    high, wide = (size // SIDE * SIDE for size in latents.shape[-2:])
    cut = latents[..., :high, :wide]
    blocks = cut.unflatten(-1, (-1, SIDE)).unflatten(-3, (-1, SIDE))
    return blocks.permute(0, 2, 3, 5, 1, 4, 6).flatten(1, 3).flatten(2)


class Gate(nn.Module):
    """A learnt factor, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh a tensor of any shape."""
        return x * self.weight.to(x)


class EmotionAttention(nn.Module):
    """Video tokens look at emotion tokens; what is found is weighed by a learnt gate, which starts at zero."""

    def __init__(self, sizes: EmotionSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm = LayerNorm(sizes.width)
        self.to_q = Linear(sizes.width, sizes.inner, bias=False)
        self.to_kv = Linear(sizes.emotion_width, 2 * sizes.inner, bias=False)
        self.to_out = Linear(sizes.inner, sizes.width, bias=False)
        self.gate = Gate()

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Emotion tokens (B, N, emotion_width) to keys and values (B, N, inner)."""
        k, v = self.to_kv(tokens).chunk(2, dim=-1)
        return k, v

    def forward(self, video: Tensor, k: Tensor, v: Tensor, attend: Attention = attention) -> Tensor:
        """What is added to video tokens (B, n, width), gate included."""
        found = attend(self.to_q(self.norm(video)), k, v, self.heads)
        return torch.as_tensor(self.gate(self.to_out(found)))


class EmotionNetwork(nn.Module):
    """The whole module; names are those of the file."""

    def __init__(self, sizes: EmotionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.proj = Linear(CHANNELS * SIDE * SIDE, sizes.emotion_width)
        self.blocks = nn.ModuleList(EmotionAttention(sizes) for _ in range(sizes.modules))

    @property
    def attentions(self) -> list[EmotionAttention]:
        """The modules in file order."""
        return [block for block in self.blocks if isinstance(block, EmotionAttention)]

    def tokens(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 16, T, h, w) of emotion pictures to tokens (B, N, emotion_width)."""
        return torch.as_tensor(self.proj(patches(latents)))
