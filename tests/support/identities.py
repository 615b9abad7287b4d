"""Identities of seeded numbers, as encoders would give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from likeness_pack.adapters.encoders.base import FaceEncoder
from likeness_pack.adapters.identity import Identity
from torch import Tensor


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


class SeededEncoder(FaceEncoder):
    """The place of an ArcFace network: its id and width, numbers that depend on where a face's box begins."""

    id, title, licence = "arcface_buffalo_l", "numbers", None
    uses_masks, unmasked_note, notes, network = False, "", (), None

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """One row for each box."""
        rows = [torch.randn(512, generator=torch.Generator().manual_seed(int(box[0]))) for box in boxes]
        return {"embedding": torch.stack(rows) * 20}
