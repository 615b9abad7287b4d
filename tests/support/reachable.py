"""What a value keeps alive."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from typing import Any

import torch


def _reachable(root: Any) -> Iterator[Any]:
    """Everything that can be reached from a value, classes, functions' globals and modules left out."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if id(value) in seen or isinstance(value, (type, types.ModuleType)):
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, types.FunctionType):
            stack += [cell.cell_contents for cell in value.__closure__ or ()]
        else:
            stack += gc.get_referents(value)


def tensor_bytes(root: Any) -> int:
    """Bytes of all storages that can be reached, each counted once."""
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for value in _reachable(root) if isinstance(value, torch.Tensor)
    }  # fmt: skip
    return sum(storages.values())
