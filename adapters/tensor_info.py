"""What is known of a tensor in a file without reading it, and how the names in a file are made canonical."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

# What trainers leave beside the weights; it never decides whether a wrapper level is removed.
_RESIDUE = ("optimizer", "lr_scheduler", "scheduler", "callbacks", "loops", "scaler", "amp_scaling_state")
_WRAPPERS = ("state_dict.", "model.", "module.")
_MAX_WRAPPERS = 8
# Empty and expanded tensors may claim any size without a byte in the file; sizes beyond this are no layout, and layers
# built from several of them would exceed what torch can count.
MAX_UNBACKED = 2**20


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes when loaded."""
        return self.count * self.dtype.itemsize


def kept_dtype(stored: torch.dtype) -> torch.dtype:
    """The dtype that weights are kept in once they are loaded: the file's, float32 for float64."""
    return torch.float32 if stored is torch.float64 else stored


@dataclass(frozen=True)
class RawHeader:
    """What a container reader found, under the names the file uses.

    Attributes:
        tensors: shape and dtype by name, nested levels joined by a dot.
        metadata: texts of the file.
        fingerprint: the bytes that describe the file, for its digest.
        foreign: classes and functions beyond tensors and plain containers that a pickle asks for.
        by_weights_only: whether ``torch.load(weights_only=True)`` can read it (safetensors: not needed).
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    fingerprint: bytes = b""
    foreign: tuple[str, ...] = ()
    by_weights_only: bool = True


def unbacked_size(shape: tuple[int, ...], stored: int) -> int | None:
    """A dimension too large to be believed, in a tensor whose file holds only ``stored`` elements for it; or None."""
    reach = math.prod(max(size, 1) for size in shape)
    largest = max(shape, default=0)
    return largest if reach > stored and largest > MAX_UNBACKED else None


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Map canonical names to the names in the file.

    A level that wraps everything is removed (``state_dict.``, ``model.``, ``module.``, in any order and depth);
    what a trainer keeps beside ``state_dict`` (optimizers, schedulers, callbacks) is then left out.
    """
    mapping = {name: name for name in names}
    for _ in range(_MAX_WRAPPERS):
        for wrapper in _WRAPPERS:
            inner = {name: raw for name, raw in mapping.items() if name.startswith(wrapper)}
            if inner and all(name in inner or _is_residue(name) for name in mapping):
                mapping = {name.removeprefix(wrapper): raw for name, raw in inner.items()}
                break
        else:
            break
    return mapping


def _is_residue(name: str) -> bool:
    return name.split(".", 1)[0].rstrip("s").startswith(tuple(word.rstrip("s") for word in _RESIDUE))
