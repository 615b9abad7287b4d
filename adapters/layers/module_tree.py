"""Modules under the dotted names that a checkpoint's keys have."""

from __future__ import annotations

from torch import nn


def place_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module under a dotted path; parents that are not there become empty modules."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)
