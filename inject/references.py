"""References of restorers: identities whose picture features are in RestorerID's order of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..adapters.families.restorerid.adapter import IMAGE_TOKENS_BGR
from ..adapters.identity import IMAGE_TOKENS, Identity
from ..adapters.identity_ops import combine, with_image_tokens
from .clip_vision import image_tokens


def with_reference_tokens(identity: Identity, clip_vision: Any, crops: Tensor) -> Identity:
    """An identity with what RestorerID reads of its crops.

    The official code hands the image encoder blue, green and red in the places of red, green and blue; its weights
    depend on that, so the features have a name of their own.

    Args:
        identity: N faces.
        clip_vision: the host's CLIP_VISION, ViT-H/14.
        crops: (N, 3, 224, 224) RGB 0..1, arcface template.
    """
    told = with_image_tokens(identity, *image_tokens(clip_vision, crops.flip(1)))
    features = {IMAGE_TOKENS_BGR if name == IMAGE_TOKENS else name: value for name, value in told.features.items()}
    return replace(told, features=features)


def row_for_each(references: Sequence[Identity]) -> Identity:
    """One identity with one row for each of these: several photos of a person are averaged.

    Raises:
        IdentityMismatch: references of several kinds.
    """
    rows = [one if len(one) == 1 else combine([one], "average") for one in references]
    return combine(rows, "concat")
