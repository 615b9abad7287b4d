"""Copy-on-write access to a MODEL's options: nothing of the incoming MODEL is changed, whatever its clone shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def clone_model(model: Any) -> Any:
    """A clone whose option tables are its own, so that no patch reaches the cached MODEL it came from."""
    clone = model.clone()
    options = dict(clone.model_options)
    transformer = dict(options.get("transformer_options", {}))
    transformer["patches"] = {name: list(patches) for name, patches in transformer.get("patches", {}).items()}
    transformer["patches_replace"] = {
        name: dict(slots) for name, slots in transformer.get("patches_replace", {}).items()
    }
    for name in ("patches", "patches_replace"):
        if not transformer[name]:
            del transformer[name]
    options["transformer_options"] = transformer
    clone.model_options = options
    return clone


def attention_slot(model: Any, key: tuple[str, int, int]) -> Any:
    """What stands in a layer's attn2 slot, the block-wide slot included, or None."""
    slots = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
    return slots.get(key, slots.get(key[:2]))


def set_attention_slot(model: Any, key: tuple[str, int, int], patch: Callable[..., Any]) -> None:
    """Put a patch into a layer's attn2 slot."""
    model.set_model_attn2_replace(patch, *key)


def block_slot(model: Any, key: tuple[str, int]) -> Any:
    """What stands in the place of a DiT's block, or None."""
    return model.model_options["transformer_options"].get("patches_replace", {}).get("dit", {}).get(key)


def set_block_slot(model: Any, key: tuple[str, int], patch: Callable[..., Any]) -> None:
    """Put a patch in the place of a DiT's block."""
    model.set_model_patch_replace(patch, "dit", *key)


def remove_block_slot(model: Any, key: tuple[str, int]) -> None:
    """Leave a DiT's block to the host again."""
    model.model_options["transformer_options"].get("patches_replace", {}).get("dit", {}).pop(key, None)


def middle_patches(model: Any) -> list[Any]:
    """The patches between attn1 and attn2, in calling order."""
    return list(model.model_options["transformer_options"].get("patches", {}).get("middle_patch", []))


def set_middle_patches(model: Any, patches: list[Any]) -> None:
    """Replace the whole list of patches between attn1 and attn2."""
    model.model_options["transformer_options"].setdefault("patches", {})["middle_patch"] = list(patches)


def forward_wrapper(model: Any) -> Any:
    """The wrapper around the model's forward pass, or None."""
    return model.model_options.get("model_function_wrapper")
