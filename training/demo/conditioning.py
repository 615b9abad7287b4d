"""Tokens that tell the small UNet what a portrait shows; they stand where CLIP's text tokens stand in SD1.5."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..drawn_faces import Attributes
from .portraits import PROMPTED

CONTEXT = 768
TOKENS = 4
HIDDEN = 128


class AttributeTokens(nn.Module):
    """Attributes of B portraits to (B, 4, 768); the unconditional prompt is all zeros.

    Args:
        context: channels of a token.
        tokens: number of tokens.
    """

    def __init__(self, context: int = CONTEXT, tokens: int = TOKENS) -> None:
        super().__init__()
        self.tokens = tokens
        # The light's angle goes round, so that it takes two numbers.
        self.layers = nn.Sequential(
            nn.Linear(len(PROMPTED) + 1, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, tokens * context)
        )

    def forward(self, attributes: Attributes) -> Tensor:
        """(B, tokens, context)."""
        return self.layers(prompt_numbers(attributes)).unflatten(-1, (self.tokens, -1))


def prompt_numbers(attributes: Attributes) -> Tensor:
    """(B, 11) what a prompt says, about -1..1."""
    names = Attributes.names()
    plain = [attributes.values[:, names.index(name)] * 2 - 1 for name in PROMPTED if name != "light_angle"]
    angle = attributes["light_angle"] * (math.pi / 180)
    return torch.stack([*plain, angle.cos(), angle.sin()], dim=1)
