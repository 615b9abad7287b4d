"""Optional packages of the trainers, imported where they are used; each missing one says how to install it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..adapters.errors import MissingPackage


def metric_losses() -> Any:
    """The module of losses of pytorch-metric-learning (MIT)."""
    return _package("pytorch_metric_learning.losses", "pytorch-metric-learning", "margin losses")


def diffusers() -> Any:
    """The package diffusers (Apache-2.0), whose UNet has gradients."""
    return _package("diffusers", "diffusers", "training a UNet")


def tensorboard() -> Any:
    """PyTorch's writer of TensorBoard logs, which needs the package tensorboard (Apache-2.0)."""
    return _package("torch.utils.tensorboard", "tensorboard", "TensorBoard logs")


def transformers() -> Any:
    """The package transformers (Apache-2.0), which ComfyUI brings."""
    return _package("transformers", "transformers", "the prompt of a folder of diffusers")


def _package(module: str, package: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            what,
            expected=f"the package {package}",
            found=str(error),
            cure=f'install it with "{sys.executable}" -m pip install {package}',
        ) from error
