"""Identities of seeded numbers, as encoders would give them."""

from __future__ import annotations

import torch
from likeness_pack.adapters.identity import Identity


def _noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 + seed))


def arcface_identity(seed: int = 0, photos: int = 1) -> Identity:
    """An ArcFace identity of the encoder FaceID was trained with."""
    return Identity(
        "arcface_buffalo_l", {"embedding": _noise(photos, 512, seed=seed) * 20}, photos=("0" * 64,) * photos
    )


def transface_identity(seed: int = 0, photos: int = 1) -> Identity:
    """A TransFace-S identity: tokens for FACT and an embedding."""
    return Identity(
        "transface_s",
        {"embedding": _noise(photos, 512, seed=seed), "tokens": _noise(photos, 144, 512, seed=seed + 1)},
        photos=("0" * 64,) * photos,
        masked=True,
    )
