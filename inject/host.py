"""Import names of old and new ComfyUI in one place. Nothing is imported before it is asked for.

Facts: the package host of mid 2024 keeps `folder_paths` and friends under `comfy.cmd`, upstream keeps them at the top
level; wrappers, hooks and `patcher_extension` exist only upstream. Versions are never compared by number: the package
host has none that means anything.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor


def import_first(*names: str) -> ModuleType:
    """Return the first module of ``names`` that can be imported.

    Raises:
        ImportError: that of the last name, when none can be.
    """
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(names[-1])


@functools.cache
def folder_paths() -> Any:
    """The host's table of model folders."""
    return import_first("folder_paths", "comfy.cmd.folder_paths")


@functools.cache
def model_management() -> Any:
    """The host's memory manager."""
    return importlib.import_module("comfy.model_management")


@functools.cache
def model_patcher() -> Any:
    """The module of ModelPatcher."""
    return importlib.import_module("comfy.model_patcher")


@functools.cache
def operations() -> Any:
    """Layers whose weights may rest on another device or in another dtype than their input."""
    return importlib.import_module("comfy.ops").manual_cast


@functools.cache
def has_wrappers() -> bool:
    """Whether the host has sampling wrappers and additional models (upstream since December 2024)."""
    try:
        importlib.import_module("comfy.patcher_extension")
    except ImportError:
        return False
    return True


def progress_bar(total: int) -> Any:
    """The host's progress bar; `update(n)` also checks for cancel in a server."""
    return importlib.import_module("comfy.utils").ProgressBar(total)


def stop_if_cancelled() -> None:
    """Raise the host's own interrupt when the user pressed cancel."""
    model_management().throw_exception_if_processing_interrupted()


@functools.cache
def _attention_module() -> Any:
    return importlib.import_module("comfy.ldm.modules.attention")


@functools.cache
def _takes_transformer_options(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == "transformer_options" or p.kind is p.VAR_KEYWORD for p in parameters)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, extra: Mapping[str, Any]) -> Tensor:
    """The attention the user chose for this host, on (B, N, heads * d); looked up at call time so that overrides
    hold.
    """
    function = _attention_module().optimized_attention
    if _takes_transformer_options(function):
        return function(q, k, v, heads, attn_precision=extra.get("attn_precision"), transformer_options=extra)
    return function(q, k, v, heads, attn_precision=extra.get("attn_precision"))


def unet_from_tensors(tensors: dict[str, Tensor]) -> Any:
    """A MODEL of the host's own UNet with these weights (original names, no prefix); None if it knows no such."""
    loader = importlib.import_module("comfy.sd")
    load = getattr(loader, "load_diffusion_model_state_dict", None) or loader.load_unet_state_dict
    return load(tensors)


def whole_unet(tensors: dict[str, Tensor]) -> tuple[Any, set[str]]:
    """`unet_from_tensors`, and the names that the model lacks or the file does; all of them where there is no model."""
    # The host takes out what it uses.
    names = set(tensors)
    model = unet_from_tensors(tensors)
    return model, names if model is None else names ^ set(model.model.diffusion_model.state_dict())


def low_rank_patches(low_rank: Mapping[Any, tuple[Tensor, Tensor]]) -> dict[Any, Any]:
    """Weight patches in this host's own form from ``{weight key: (up, down)}``, made by its own LoRA reader.

    A key is the weight's name; upstream also takes ``(name, (dimension, start, length))`` for a part of it.
    """
    names = {f"likeness.{index}": key for index, key in enumerate(low_rank)}
    tensors: dict[str, Tensor] = {}
    for name, key in names.items():
        up, down = low_rank[key]
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.lora_down.weight"] = down
    patches = importlib.import_module("comfy.lora").load_lora(tensors, names)
    return dict(patches)
