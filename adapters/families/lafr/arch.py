"""The latent alignment adapter of LAFR (Li et al. 2025, arXiv:2505.23462): features, nearest codes, mapping.

The authors published neither code nor weights. The parts and the first training loss are the paper's; sizes, blocks
and that every position of the latent has a code of its own are this project's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
# Distances (positions x codes) held at once: 256 MB of float32.
_CHUNK_VALUES = 1 << 26


class ResBlock(nn.Module):
    """Two normalised convolutions and the input: (B, C, H, W) -> (B, C, H, W).

    Args:
        width: channels, a multiple of 32.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(inner)))


class LatentAlignAdapter(nn.Module):
    """Latents (B, 4, H, W) times the base model's scale to aligned latents of the same shape and scale.

    Between extractor and mapper every position keeps nothing but the number of its nearest code. Computes in float32.

    Args:
        channels: of the latent.
        hidden: channels of extractor and mapper, a multiple of 32.
        code_dim: length of a code.
        codes: how many there are.
        blocks: residual blocks before and after the codes.
    """

    def __init__(
        self, channels: int = 4, hidden: int = 96, code_dim: int = 256, codes: int = 1024, blocks: int = 2
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, hidden, 3, padding=1)
        self.extractor = nn.ModuleList([ResBlock(hidden) for _ in range(blocks)])
        self.to_code = nn.Conv2d(hidden, code_dim, 1)
        self.codebook = nn.Embedding(codes, code_dim)
        self.from_code = nn.Conv2d(code_dim, hidden, 3, padding=1)
        self.mapper = nn.ModuleList([ResBlock(hidden) for _ in range(blocks)])
        self.norm_out = nn.GroupNorm(GROUPS, hidden, eps=1e-6)
        self.conv_out = nn.Conv2d(hidden, channels, 3, padding=1)

    def features(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, H, W) to features (B, code_dim, H, W)."""
        x = self.conv_in(latents.float())
        for block in self.extractor:
            x = block(x)
        return self.to_code(x)

    def nearest(self, features: Tensor) -> Tensor:
        """Number of the nearest code (B, H, W) of features (B, code_dim, H, W); the lowest number where several are."""
        rows = features.movedim(1, -1).flatten(0, -2).float()
        codes = self.codebook.weight.float()
        # The features' own length is the same for every code, so it is left out of the distance.
        squares = codes.square().sum(dim=1)
        step = max(1, _CHUNK_VALUES // len(codes))
        found = [torch.addmm(squares, part, codes.T, alpha=-2).argmin(dim=1) for part in rows.split(step)]
        return torch.cat(found).view(features.shape[0], *features.shape[2:])

    def looked_up(self, numbers: Tensor) -> Tensor:
        """The codes (B, code_dim, H, W) of numbers (B, H, W)."""
        return self.codebook(numbers).movedim(-1, 1)

    def mapped(self, codes: Tensor) -> Tensor:
        """Codes (B, code_dim, H, W) to latents (B, 4, H, W)."""
        x = self.from_code(codes)
        for block in self.mapper:
            x = block(x)
        return self.conv_out(functional.silu(self.norm_out(x)))

    def forward(self, latents: Tensor) -> Tensor:
        return self.mapped(self.looked_up(self.nearest(self.features(latents))))
