"""What is told of a file of a known family that lacks something, and the shapes that a family cannot do without."""

from __future__ import annotations

from collections.abc import Mapping

from .checkpoint import CheckpointHeader, TensorInfo
from .errors import KeyMismatch


def incomplete(header: CheckpointHeader, expected: str, found: str) -> KeyMismatch:
    """The error of a file that is not whole."""
    return KeyMismatch(
        header.path.name,
        expected=expected,
        found=found,
        cure="download the file again and compare its size with the publisher's",
    )


def shape_of(part: Mapping[str, TensorInfo], name: str) -> tuple[int, ...]:
    """Shape of a tensor of a part, () where it is missing."""
    info = part.get(name)
    return () if info is None else info.shape


def needed_shape(
    header: CheckpointHeader, part: Mapping[str, TensorInfo], name: str, dimensions: int = 2, prefix: str = ""
) -> tuple[int, ...]:
    """Shape of a tensor of ``part``, which the file keeps under ``prefix``.

    Raises:
        KeyMismatch: it is not there, or has another number of dimensions.
    """
    info = part.get(name)
    if info is None or len(info.shape) != dimensions:
        found = "no such key" if info is None else f"{info.shape}"
        raise incomplete(header, f"{prefix}{name} of {dimensions} dimensions", found)
    return info.shape
