"""MUSIQ's network. Attribute names are those of pyiqa's checkpoints.

Follows MUSIQ (Ke et al. 2021, arXiv:2108.05997; pyiqa ``musiq_arch.py``). Quirks the checkpoints depend on: the
convolutions' weights are standardised by their unbiased deviation plus 1e-5; the stem's norm has eps 1e-6 and the
bottleneck's 1e-4; patches are flattened with channels last; attention leaves out padding by -1e3, in rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .patches import PATCH, PictureTokens, pad_same, picture_tokens

WIDTH = 384
INNER = 1152
PLACES = 100
SCALES = 3
STEM = 64
TOKENS_AT_ONCE = 512


class StdConv(nn.Conv2d):
    """Convolution with standardised weights and TensorFlow's "same" padding, without bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), weight, stride=self.stride)


class Bottleneck(nn.Module):
    """(N, 64, 8, 8) -> (N, 256, 8, 8)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.gn1 = StdConv(inputs, inputs, 1), nn.GroupNorm(32, inputs, eps=1e-4)
        self.conv2, self.gn2 = StdConv(inputs, inputs, 3), nn.GroupNorm(32, inputs, eps=1e-4)
        self.conv3, self.gn3 = StdConv(inputs, outputs, 1), nn.GroupNorm(32, outputs, eps=1e-4)
        self.conv_proj, self.gn_proj = StdConv(inputs, outputs, 1), nn.GroupNorm(32, outputs, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.gn_proj(self.conv_proj(x))
        x = self.gn1(self.conv1(x)).relu()
        x = self.gn2(self.conv2(x)).relu()
        return (self.gn3(self.conv3(x)) + shortcut).relu()


class SelfAttention(nn.Module):
    """Masked self-attention: (B, N, 384) and (N,) -> (B, N, 384)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        both = mask[:, None] * mask[None, :]
        weights = logits.masked_fill(both == 0, -1e3).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with exact GELU: (B, N, 384) -> (B, N, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention, self.mlp = SelfAttention(heads), Mlp()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class _Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position_emb = nn.Parameter(torch.zeros(1, PLACES, WIDTH))


class _Scales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale_emb = nn.Parameter(torch.zeros(SCALES, WIDTH))


class Transformer(nn.Module):
    """Embedded patches (B, N, 384) with their places to the class token (B, 384)."""

    def __init__(self, layers: int, heads: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.posembed_input, self.scaleembed_input = _Places(), _Scales()
        self.encoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{number}": EncoderBlock(heads) for number in range(layers)})

    def forward(self, x: Tensor, tokens: PictureTokens) -> Tensor:
        x = x + self.posembed_input.position_emb[0, tokens.places] + self.scaleembed_input.scale_emb[tokens.scales]
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        mask = torch.cat([tokens.mask.new_ones(1), tokens.mask])
        for block in self.transformer.values():
            x = block(x, mask)
        return self.encoder_norm(x)[:, 0]


class Musiq(nn.Module):
    """Pictures to scores, 0 to 100 by its koniq10k head.

    Args:
        layers: transformer blocks (14).
        heads: attention heads (6).
    """

    def __init__(self, layers: int = 14, heads: int = 6) -> None:
        super().__init__()
        self.conv_root = StdConv(3, STEM, 7, 2)
        self.gn_root = nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = Bottleneck(STEM, 4 * STEM)
        self.embedding = nn.Linear((PATCH // 4) ** 2 * 4 * STEM, WIDTH)
        self.transformer_encoder = Transformer(layers, heads)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), RGB 0..1, of at least one pixel, give scores (B, 1)."""
        tokens = picture_tokens(pictures)
        flat = tokens.values.flatten(0, 1).unflatten(-1, (3, PATCH, PATCH))
        # A large picture has thousands of patches; in parts their activations stay small.
        embedded = torch.cat([self._embedded(part) for part in flat.split(TOKENS_AT_ONCE)])
        return self.head(self.transformer_encoder(embedded.unflatten(0, tokens.values.shape[:2]), tokens))

    def _embedded(self, patches: Tensor) -> Tensor:
        """Patches (N, 3, 32, 32) give (N, 384)."""
        x = self.gn_root(self.conv_root(patches)).relu()
        x = functional.max_pool2d(pad_same(x, 3, 2), 3, stride=2)
        return self.embedding(self.block1(x).permute(0, 2, 3, 1).flatten(1))
