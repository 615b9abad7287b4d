"""What the small networks' portraits vary in: pose, expression, light, glasses, background; framing stays the same."""

from __future__ import annotations

import torch

from ..drawn_faces import Attributes, sample_attributes

# What a prompt says; everything else keeps its neutral value.
PROMPTED = (
    "yaw",
    "pitch",
    "smile",
    "mouth_open",
    "light_angle",
    "light_strength",
    "glasses",
    "background_red",
    "background_green",
    "background_blue",
)
PORTRAIT_ZOOM = 1.08


def portrait_attributes(count: int, generator: torch.Generator) -> Attributes:
    """Attributes of ``count`` portraits."""
    sampled = sample_attributes(count, generator)
    values = {name: sampled[name] for name in PROMPTED}
    return Attributes.neutral(count).replaced(**values, zoom=PORTRAIT_ZOOM)
