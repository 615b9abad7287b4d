"""Lets a torchvision built for CUDA import beside a torch for the CPU, by declaring two operators that it expects.

setup_env.py copies this file into an environment whose ``import torchvision`` fails without it. It acts on the first
import of torchvision only. The compiled operators (nms, roi_align) stay unusable; ComfyUI and the pack use none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision:
    """A finder that finds nothing: it declares the operators when torchvision is about to be searched."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare()
        return None


def declare() -> None:
    """Declare the schemas of the operators that are not there yet."""
    import torch

    for operator in OPERATORS:
        try:
            torch.library.define(f"torchvision::{operator}", SCHEMA)
        except RuntimeError:
            continue


def install() -> None:
    """Watch for the first import of torchvision."""
    sys.meta_path.insert(0, _BeforeTorchvision())
