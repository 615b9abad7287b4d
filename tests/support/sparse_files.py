"""Checkpoints of the published size that take no room on the disk, for tests that recognise and never load."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def write_sparse_safetensors(
    path: Path,
    shapes: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a file of true length whose data is a hole of zeros; ``shapes`` maps names to sizes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + position)
    return path


def write_zero_storage_torch(
    path: Path, shapes: Mapping[str, Any], dtype: torch.dtype = torch.float32, *, legacy: bool = False
) -> Path:
    """Write a torch file of true shapes whose tensors all share one number; nested dicts stay nested."""
    torch.save(_expanded(shapes, torch.zeros((), dtype=dtype)), path, _use_new_zipfile_serialization=not legacy)
    return path


def _expanded(shapes: Mapping[str, Any], number: torch.Tensor) -> dict[str, Any]:
    return {
        name: _expanded(shape, number) if isinstance(shape, Mapping) else number.expand(tuple(shape))
        for name, shape in shapes.items()
    }


def nested_by_part(shapes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Turn flat names with a leading part (``image_proj.norm.weight``) into the two-level form of ``.bin`` files."""
    parts: dict[str, dict[str, Any]] = {}
    for name, shape in shapes.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = shape
    return parts
