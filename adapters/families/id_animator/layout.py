"""The two layouts of ID-Animator files and what tells them from their relatives: keys and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...checkpoint import CheckpointHeader, TensorInfo

# The published dump of the trainer, and the two-part form its loader reads too.
LAYOUTS = (("image_proj_model.", "adapter_modules."), ("image_proj.", "face_adapter."))
CONTEXT = 768
LAYERS = 16
FIRST = "1.to_k_face.weight"
ROLES = {"q": "to_q_lora", "k": "to_k_lora", "v": "to_v_lora", "out": "to_out_lora"}

Part = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Parts:
    """The two parts of a file, names without their prefixes.

    Attributes:
        resampler: tensors of the resampler.
        attention: tensors of the attention layers, by index and name.
        prefixes: prefixes of both in the file.
        others: leading words of tensors that belong to neither part.
    """

    resampler: Part
    attention: Part
    prefixes: tuple[str, str]
    others: tuple[str, ...]


def parts_of(header: CheckpointHeader) -> Parts | None:
    """The parts of a file of either layout, or None."""
    for prefixes in LAYOUTS:
        resampler, attention = (header.with_prefix(prefix) for prefix in prefixes)
        if resampler and attention:
            others = {name.split(".")[0] for name in header.tensors if not name.startswith(prefixes)}
            return Parts(resampler, attention, prefixes, tuple(sorted(others)))
    return None


def refusal(parts: Parts) -> str | None:
    """Why these parts are not ID-Animator's, or None if they are."""
    first = parts.attention.get(FIRST)
    if first is None:
        return f"no {FIRST} (the face keys)"
    if len(first.shape) != 2 or first.shape[1] != CONTEXT:
        return f"face keys {first.shape}; ID-Animator exists for SD1.5 (context {CONTEXT})"
    if "latents" not in parts.resampler or "proj_in.weight" not in parts.resampler:
        return "no latents (the learned facial queries) beside the face keys"
    if len(parts.resampler["latents"].shape) != 3:
        return f"latents of shape {parts.resampler['latents'].shape}"
    return None
