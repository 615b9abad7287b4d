"""The place of each audio token of MuseTalk (official musetalk/models/unet.py, ``PositionalEncoding``)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BASE = 10_000.0


def positions(rows: int, width: int) -> Tensor:
    """(rows, width) float32: sines in even and cosines in odd columns; added to the audio tokens of every frame."""
    places = torch.arange(rows, dtype=torch.float32)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(_BASE) / width))
    return torch.stack([torch.sin(places * rates), torch.cos(places * rates)], dim=2).flatten(1)


def with_positions(tokens: Tensor) -> Tensor:
    """Audio tokens (..., rows, width) with their places added."""
    return tokens + positions(tokens.shape[-2], tokens.shape[-1]).to(tokens)
