"""Pairs of a clean and a bad picture, and the latents of both.

A pair is made in one go, from one picture and one seed, and used at once. RestorerID's published code keeps a pool of
pairs and shuffles two of its three parts but not the third, so that later pairs do not belong together; there is no
pool here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .degradations import Strengths, degrade
from .pictures import Pictures, stacked
from .seeds import generator_for, seed_for

# Pictures (B, 3, H, W) in 0..1 to latents (B, 4, H/8, W/8) times the base model's scale, without a random part.
Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some pairs.

    Attributes:
        numbers: of the pictures.
        clean, bad: (B, 3, S, S) in 0..1; row i of both is one picture.
        mirrored: (B,) bool, whether the row is mirrored.
    """

    numbers: tuple[int, ...]
    clean: Tensor
    bad: Tensor
    mirrored: Tensor


def draw_pairs(
    pictures: Pictures, seed: int, step: int, batch: int, strengths: Strengths, mirror: bool = True
) -> Pairs:
    """The pairs of one step; ``seed`` and ``step`` alone decide pictures, mirroring and degradations."""
    generator = generator_for(seed, "pairs", step)
    numbers = tuple(torch.randint(len(pictures), (batch,), generator=generator).tolist())
    mirrored = torch.rand(batch, generator=generator) < (0.5 if mirror else 0.0)
    clean = stacked(pictures, numbers)
    clean = torch.where(mirrored[:, None, None, None], clean.flip(-1), clean)
    bad = degrade(clean, [seed_for(seed, "degradation", step, row) for row in range(batch)], strengths)
    return Pairs(numbers, clean, bad, mirrored)


def encoded(encode: Encode, pictures: Tensor, device: torch.device) -> Tensor:
    """Latents of pictures as plain numbers of this run: float32 on ``device``, fit for gradients of what follows."""
    with torch.no_grad():
        return encode(pictures).detach().to(device, torch.float32).clone()
