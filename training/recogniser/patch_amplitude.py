"""Dominant patch amplitude perturbation (DPAP): the patches a network leans on get another patch's spectrum.

Dan et al., "TransFace", ICCV 2023; official ``FFT.amplitude_spectrum_mix`` and training loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

PATCH = 9
DOMINANT = 7
CHANCE = 0.2
LEVELS = 255.0


def mix_amplitudes(own: Tensor, other: Tensor, share: Tensor | float) -> Tensor:
    """Patches with their own phase and a mixed amplitude, truncated to whole grey levels.

    Args:
        own: (..., C, h, w) patches, 0..255.
        other: patches of the same shape whose amplitude is mixed in.
        share: of the other's amplitude, 0..1; a number, or a tensor that broadcasts.

    Returns:
        (..., C, h, w), 0..255 in whole numbers.
    """
    spectrum, foreign = torch.fft.fft2(own), torch.fft.fft2(other)
    amplitude = share * foreign.abs() + (1 - share) * spectrum.abs()
    mixed = torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real
    return mixed.clamp(0, LEVELS).trunc()


def perturb_dominant_patches(
    images: Tensor, weight: Tensor, generator: torch.Generator, chance: float = CHANCE, dominant: int = DOMINANT
) -> Tensor:
    """Perturb the patches of largest weight in some pictures of a batch.

    Args:
        images: (B, 3, H, W) in -1..1.
        weight: (B, P) the network's weight of each patch, row by row of a square grid.
        generator: every choice is drawn from it.
        chance: probability that a picture is perturbed.
        dominant: how many patches of it.

    Returns:
        (B, 3, H, W) in -1..1; pictures not chosen are unchanged.
    """
    changed = images.clone()
    side = int(weight.shape[1] ** 0.5)
    chosen = torch.rand(len(images), generator=generator) < chance
    best = weight.topk(min(dominant, weight.shape[1]), dim=1).indices
    for row in chosen.nonzero().flatten().tolist():
        for place in best[row].tolist():
            top, left = PATCH * (place // side), PATCH * (place % side)
            own = images[row, :, top : top + PATCH, left : left + PATCH]
            share = float(torch.rand((), generator=generator))
            mixed = mix_amplitudes(_levels(own), _levels(_random_patch(images, generator)), share)
            changed[row, :, top : top + PATCH, left : left + PATCH] = mixed / LEVELS * 2 - 1
    return changed


def _levels(patch: Tensor) -> Tensor:
    return (patch + 1) * (LEVELS / 2)


def _random_patch(images: Tensor, generator: torch.Generator) -> Tensor:
    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    row, top, left = below(len(images)), below(images.shape[2] - PATCH + 1), below(images.shape[3] - PATCH + 1)
    return images[row, :, top : top + PATCH, left : left + PATCH]
