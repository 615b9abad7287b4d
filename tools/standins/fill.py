"""The rule that fills stand-ins: each tensor depends on its name and shape alone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Floats = NDArray[np.float32]
COUNTER = "num_batches_tracked"
GATE = ("alpha_attn", "alpha_dense")
# A full-strength random LoRA would be as large as the weights it changes and drown the picture.
LOW_RANK_UP = 0.1


def filled(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of normal numbers that keep activations near unit size.

    Matrices and kernels are scaled by ``1 / sqrt(fan_in)``, scales of norms lie around 1, variances above 1, gates of
    gated layers around 0.5 (so that they act), everything else around 0.

    Args:
        name: seeds the numbers.
        shape: shape of the tensor.
        dtype: floating type; counters of batch norms are int64 zeros whatever it is.
    """
    if name.endswith(COUNTER):
        return torch.zeros(shape, dtype=torch.int64)
    stream = np.random.default_rng(zlib.crc32(name.encode("utf-8")))
    normal = np.asarray(stream.standard_normal(shape, dtype=np.float32))
    return torch.as_tensor(_scaled(name, shape, normal)).reshape(shape).to(dtype)


def _scaled(name: str, shape: tuple[int, ...], normal: Floats) -> Floats:
    small = np.float32(0.1)
    if name.endswith("vae_scale"):
        return np.ones((), np.float32)
    if name.endswith(GATE):
        return np.asarray(np.float32(0.5) + small * normal, np.float32)
    if len(shape) >= 2:
        gain = LOW_RANK_UP if name.endswith("lora.up.weight") else 1.0
        return normal * np.float32(gain / np.sqrt(max(1, int(np.prod(shape[1:])))))
    if name.endswith("running_var"):
        return np.asarray(1 + small * np.abs(normal), np.float32)
    return np.asarray(small * normal + (1 if name.endswith("weight") else 0), np.float32)


def filled_all(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, Tensor]:
    """`filled` for every name."""
    return {name: filled(name, shape, dtype) for name, shape in shapes.items()}
