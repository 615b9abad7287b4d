"""A trained emotion file for HunyuanVideo-Avatar, by formula: the project's own layout, at any width."""

from __future__ import annotations

import torch
from torch import Tensor

from .blocks import linear, norm
from .fill import Shapes, filled_all

TOKEN, TEN = 64, 10


def emotion(width: int = 3072, inner: int = 1024, tokens: int = 1024, modules: int = TEN) -> Shapes:
    """Names and shapes; module j belongs to double block ``2 j + 1``."""
    shapes = linear("proj", TOKEN, tokens)
    for name in (f"blocks.{number}" for number in range(modules)):
        shapes |= norm(f"{name}.norm", width) | linear(f"{name}.to_q", width, inner, bias=False)
        shapes |= linear(f"{name}.to_kv", tokens, 2 * inner, bias=False)
        shapes |= linear(f"{name}.to_out", inner, width, bias=False) | {f"{name}.gate.weight": (1,)}
    return shapes


def filled(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors of the shapes, with open gates."""
    tensors = filled_all(shapes, dtype)
    return {n: torch.full_like(one, 0.5) if n.endswith("gate.weight") else one for n, one in tensors.items()}
