"""Colours of skin, hair, eyes, lips and clothes from single numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from .parameters import Attributes, IdentityParameters

_SKIN = ((0.99, 0.86, 0.77), (0.93, 0.73, 0.58), (0.78, 0.55, 0.39), (0.55, 0.36, 0.25), (0.33, 0.21, 0.15))
_HAIR = (
    (0.08, 0.07, 0.08),
    (0.27, 0.17, 0.11),
    (0.50, 0.31, 0.16),
    (0.62, 0.24, 0.10),
    (0.86, 0.70, 0.38),
    (0.72, 0.72, 0.73),
    (0.30, 0.36, 0.62),
)
_EYES = ((0.24, 0.13, 0.07), (0.46, 0.32, 0.12), (0.25, 0.48, 0.25), (0.22, 0.45, 0.78), (0.55, 0.60, 0.66))
_CLOTHES = ((0.16, 0.17, 0.22), (0.20, 0.35, 0.55), (0.55, 0.20, 0.22), (0.75, 0.72, 0.66), (0.22, 0.45, 0.33))


def along(anchors: tuple[tuple[float, float, float], ...], places: Tensor) -> Tensor:
    """Colours (B, 3) at places (B,) of 0..1 along a chain of anchors."""
    chain = torch.tensor(anchors).to(places)
    scaled = places.clamp(0, 1) * (len(anchors) - 1)
    low = scaled.floor().clamp(max=len(anchors) - 2).long()
    return torch.lerp(chain[low], chain[low + 1], (scaled - low)[:, None])


def skin(identities: IdentityParameters) -> Tensor:
    """(B, 3)."""
    red = identities["skin_red"][:, None] * torch.tensor([1.0, -0.4, -0.7])
    return (along(_SKIN, identities["skin_tone"]) + red).clamp(0, 1)


def hair(identities: IdentityParameters) -> Tensor:
    """(B, 3)."""
    return (along(_HAIR, identities["hair_colour"]) + identities["hair_light"][:, None]).clamp(0.02, 1)


def iris(identities: IdentityParameters) -> Tensor:
    """(B, 3)."""
    return along(_EYES, identities["eye_colour"])


def lips(identities: IdentityParameters) -> Tensor:
    """(B, 3): from the skin's own tone to a strong red."""
    own = skin(identities) * torch.tensor([0.82, 0.62, 0.62])
    return torch.lerp(own, torch.tensor([0.72, 0.16, 0.20]), 0.15 + 0.75 * identities["lip_red"][:, None])


def clothes(attributes: Attributes) -> Tensor:
    """(B, 3)."""
    return along(_CLOTHES, attributes["clothes"])


def background(attributes: Attributes) -> Tensor:
    """(B, 3)."""
    return torch.stack([attributes[f"background_{name}"] for name in ("red", "green", "blue")], dim=1)
