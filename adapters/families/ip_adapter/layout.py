"""What tells an IP-Adapter of CLIP pictures from its relatives: keys and shapes only."""

from __future__ import annotations

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import KeyMismatch
from ...incomplete import incomplete, shape_of
from ...layers import casting
from ...layers.perceiver import Resampler
from ...tensor_info import kept_dtype
from ..ip_adapter_faceid.arch import FaceKeysValues
from ..ip_adapter_faceid.layout import BASES, Parts, parts_of
from .arch import ProjectedAttention

HEAD_DIM = 64
# Widths of CLIP hidden states that published files take: ViT-H/14 and ViT-bigG/14.
PATCH_WIDTHS = (1280, 1664)
_FOREIGN_ATTENTION = {
    "_lora.": "a LoRA beside the keys (FaceID)",
    ".to_q_wplus": "attention of a W+ adapter (to_q_wplus)",
    ".to_k_face": "attention of ID-Animator (to_k_face)",
}


def needed_parts(header: CheckpointHeader) -> Parts:
    """The two parts of a file that was recognised. Raises KeyMismatch where the file changed since."""
    parts = parts_of(header)
    if parts is None:
        raise KeyMismatch(
            header.path.name,
            expected="the parts image_proj and ip_adapter",
            found="another file",
            cure="load the file again",
        )
    return parts


def attention_refusal(parts: Parts) -> str | None:
    """Why the attention part holds more or less than plain image keys and values, or None."""
    for piece, reason in _FOREIGN_ATTENTION.items():
        if any(piece in name for name in parts.attention):
            return reason
    if not any(name.endswith(".to_k_ip.weight") for name in parts.attention):
        return "no to_k_ip (the image keys)"
    if parts.context not in BASES:
        return f"text context {parts.context} wide; only SD1.5 (768) and SDXL (2048) are known"
    return None


def resampler_refusal(parts: Parts) -> str | None:
    """Why the projection is no resampler with learned queries, or None."""
    part = parts.projection
    if "mapping_0.0.weight" in part or "body.0.weight" in part:
        return "projection of PuLID"
    missing = [name for name in ("latents", "proj_in.weight", "proj_out.weight", "norm_out.weight") if name not in part]
    if missing:
        return f"no {missing[0]} (a resampler with learned queries)"
    if len(shape_of(part, "latents")) != 3 or len(shape_of(part, "proj_in.weight")) != 2:
        return "latents or proj_in of another shape"
    queries = shape_of(part, "layers.0.0.to_q.weight")
    if len(queries) != 2 or queries[0] % HEAD_DIM:
        return "no layers.0.0.to_q of whole heads of 64"
    if shape_of(part, "proj_out.weight")[:1] != (parts.context,):
        return f"proj_out does not give tokens of the text context's width {parts.context}"
    return None


def resampler(parts: Parts) -> Resampler:
    """The resampler that the shapes describe, in float32, weights to come (meta device)."""
    part = parts.projection
    inner = shape_of(part, "layers.0.0.to_q.weight")[0]
    forward = shape_of(part, "layers.0.1.1.weight")
    depth = len({name.split(".")[1] for name in part if name.startswith("layers.")})
    with torch.device("meta"):
        return Resampler(
            input_dim=shape_of(part, "proj_in.weight")[1],
            width=shape_of(part, "proj_in.weight")[0],
            output_dim=parts.context,
            queries=shape_of(part, "latents")[1],
            depth=depth,
            heads=inner // HEAD_DIM,
            head_dim=HEAD_DIM,
            feed_forward=forward[0] if forward else 1,
        )


def attention_layers(header: CheckpointHeader, parts: Parts) -> nn.ModuleDict:
    """Keys and values of every attn2 under the file's indices, in the file's dtype, weights to come (meta device).

    Raises:
        KeyMismatch: a layer of the base model that the file lacks.
    """
    _, count = BASES[parts.context]
    modules = nn.ModuleDict()
    with torch.device("meta"):
        for index in range(1, 2 * count, 2):
            shape = shape_of(parts.attention, f"{index}.to_k_ip.weight")
            if len(shape) != 2:
                expected = f"{index}.to_k_ip.weight of 2 dimensions, one of {count} layers"
                raise incomplete(header, expected, f"{shape}" if shape else "no such key")
            modules[str(index)] = FaceKeysValues(parts.context, shape[0], casting)
    return modules.to(kept_dtype(parts.attention["1.to_k_ip.weight"].dtype))


def filled_network(header: CheckpointHeader, parts: Parts, projection: nn.Module) -> ProjectedAttention:
    """Load both parts strictly; ``projection`` is on the meta device. Raises KeyMismatch on any difference."""
    attention = attention_layers(header, parts)
    for module, prefix in zip((projection, attention), parts.prefixes, strict=True):
        load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
    return ProjectedAttention(projection, [layer for layer in attention.values() if isinstance(layer, FaceKeysValues)])


def estimates(parts: Parts, tokens: int) -> dict[str, int]:
    """Layers, and bytes: float32 projection with the maps; keys and values of one photo, both branches."""
    maps = {name: info for name, info in parts.attention.items() if name.endswith(("to_k_ip.weight", "to_v_ip.weight"))}
    projection = sum(info.count for info in parts.projection.values())
    itemsize = parts.attention["1.to_k_ip.weight"].dtype.itemsize
    return {
        "layers": len(maps) // 2,
        "encode_bytes": 4 * projection + sum(info.nbytes for info in maps.values()),
        "sample_bytes": itemsize * 2 * tokens * sum(info.shape[0] for info in maps.values()),
    }
