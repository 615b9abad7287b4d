"""The three losses of DreamID's training, with gradients through decoder, warp and face encoder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from ..adapters.families.lafr.one_step import alpha_bar
from ..faces.align import align_matrix
from ..faces.warp import warp

ENCODER_SIZE = 112
# Crops (B, 3, 112, 112) of -1..1, in ArcFace's template, to embeddings (B, D) of any length; gradients flow through.
Embed = Callable[[Tensor], Tensor]


class Codec(Protocol):
    """The base model's VAE."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) of 0..1 to latents (B, 4, h, w), scaled as the UNet sees them; no random part."""

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, (B, 3, S, S), not clamped; gradients flow through."""


def embedded(embed: Embed, pictures: Tensor, landmarks5: Tensor) -> Tensor:
    """Unit embeddings (B, D) of the faces in pictures (B, 3, S, S) of 0..1 whose landmarks5 (B, 5, 2) are known."""
    return functional.normalize(embed(encoder_crops(pictures, landmarks5)).float(), dim=1)


def encoder_crops(pictures: Tensor, landmarks5: Tensor) -> Tensor:
    """Crops (B, 3, 112, 112) of -1..1 in ArcFace's template, of pictures (B, 3, S, S) of 0..1; gradients flow."""
    return warp(pictures, align_matrix(landmarks5, "arcface", ENCODER_SIZE), ENCODER_SIZE) * 2 - 1


def identity_loss(embed: Embed, pictures: Tensor, landmarks5: Tensor, source: Tensor) -> Tensor:
    """One minus the mean cosine of generated faces and the sources' unit embeddings (B, D).

    The landmarks are those of the ground truth, whose geometry a right answer shares, so that nothing need be detected
    in ``pictures`` (B, 3, S, S) and gradients reach them.
    """
    return 1 - (embedded(embed, pictures, landmarks5) * source).sum(dim=1).mean()


def picture_loss(pictures: Tensor, truth: Tensor) -> Tensor:
    """Mean squared difference of pictures of 0..1, measured in -1..1 as the VAE does."""
    return functional.mse_loss(pictures * 2, truth * 2)


def noised(clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
    """Latents at a timestep (0..999) of Stable Diffusion's schedule."""
    share = alpha_bar(timestep)
    return math.sqrt(share) * clean + math.sqrt(1 - share) * noise


def aim(clean: Tensor, noise: Tensor, timestep: int, prediction: str) -> Tensor:
    """What the UNet should predict there: the noise, or the velocity."""
    if prediction == "eps":
        return noise
    share = alpha_bar(timestep)
    return math.sqrt(share) * noise - math.sqrt(1 - share) * clean


def renoised(clean: Tensor, noisy: Tensor, timestep: int, following: int) -> Tensor:
    """The deterministic step from one timestep to a less noisy one, given the clean latent that was predicted."""
    share = alpha_bar(timestep)
    noise = (noisy - math.sqrt(share) * clean) / math.sqrt(1 - share)
    return noised(clean, noise, following)
