"""Key lists and small files of IP-Adapter, InstantID and PhotoMaker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from likeness_pack.tools.standins.adapters import face_attention, fact_blocks, sdxl_blocks
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes, filled_all
from sparse_files import nested_by_part
from tiny_adapters import widths

CONTEXT = {"sd15": 768, "sdxl": 2048}
KIND = {"sd15": "SD15", "sdxl": "SDXL"}


def published_widths(base: str) -> list[int]:
    """Width of each attn2 layer of the published base model."""
    return list((fact_blocks() if base == "sd15" else sdxl_blocks()).values())


def plain(base: str, layers: Sequence[int], image_dim: int = 1024, tokens: int = 4) -> Shapes:
    """Plain IP-Adapter."""
    context = CONTEXT[base]
    projection = linear("image_proj.proj", image_dim, tokens * context) | norm("image_proj.norm", context)
    return projection | face_attention(layers, context, None)


def full_face(base: str, layers: Sequence[int], image_dim: int = 1280) -> Shapes:
    """Full-face."""
    context = CONTEXT[base]
    projection = linear("image_proj.proj.0", image_dim, image_dim) | linear("image_proj.proj.2", image_dim, context)
    return projection | norm("image_proj.proj.3", context) | face_attention(layers, context, None)


def resampled(
    base: str,
    layers: Sequence[int],
    inputs: int,
    width: int,
    inner: int | None = None,
    queries: int = 16,
    depth: int = 4,
) -> Shapes:
    """Plus and plus-face (``inputs`` 1280), InstantID and Portrait-unnorm (512)."""
    context, name = CONTEXT[base], "image_proj."
    shapes: Shapes = {f"{name}latents": (1, queries, width)}
    shapes |= linear(f"{name}proj_in", inputs, width) | linear(f"{name}proj_out", width, context)
    shapes |= norm(f"{name}norm_out", context) | perceiver(name, width, depth, inner or width)
    return shapes | face_attention(layers, context, None)


def tiny(base: str, kind: str, **sizes: Any) -> Shapes:
    """A file for a tiny base model: ``kind`` is plain, full_face, plus or instantid."""
    layers = widths(KIND[base])
    if kind == "plain":
        return plain(base, layers, image_dim=sizes.get("image_dim", 24))
    if kind == "full_face":
        return full_face(base, layers, image_dim=sizes.get("image_dim", 1280))
    inputs = 512 if kind == "instantid" else 1280
    return resampled(base, layers, inputs, 64, queries=4, depth=1)


def clip_vision_keys(width: int, depth: int, inner: int, patch: int, positions: int) -> Shapes:
    """CLIP's image tower under Hugging Face's names."""
    name = "id_encoder.vision_model."
    shapes: Shapes = {
        f"{name}embeddings.class_embedding": (width,),
        f"{name}embeddings.patch_embedding.weight": (width, 3, patch, patch),
        f"{name}embeddings.position_embedding.weight": (positions, width),
    }
    shapes |= norm(f"{name}pre_layrnorm", width) | norm(f"{name}post_layernorm", width)
    for number in range(depth):
        layer = f"{name}encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{part}", width, width)
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        shapes |= linear(f"{layer}.mlp.fc1", width, inner) | linear(f"{layer}.mlp.fc2", inner, width)
    return shapes


def photomaker(
    second: bool, width: int = 1024, depth: int = 24, inner: int = 4096, patch: int = 14, positions: int = 257,
    hidden: int = 2048, perceiver_depth: int = 4,
) -> Shapes:  # fmt: skip
    """The id_encoder part of PhotoMaker v1 or v2."""
    shapes = clip_vision_keys(width, depth, inner, patch, positions)
    shapes |= linear("id_encoder.visual_projection", width, 768, bias=False)
    shapes |= linear("id_encoder.visual_projection_2", width, 1280, bias=False)
    for block, inputs in (("mlp1", 4096), ("mlp2", 2048)):
        name = f"id_encoder.fuse_module.{block}"
        shapes |= norm(f"{name}.layernorm", inputs) | linear(f"{name}.fc1", inputs, 2048)
        shapes |= linear(f"{name}.fc2", 2048, 2048)
    shapes |= norm("id_encoder.fuse_module.layer_norm", 2048)
    if second:
        name = "id_encoder.qformer_perceiver."
        shapes |= linear(f"{name}token_proj.0", 512, hidden) | linear(f"{name}token_proj.2", hidden, 4096)
        shapes |= norm(f"{name}token_norm", 2048)
        name += "perceiver_resampler."
        shapes |= linear(f"{name}proj_in", width, 2048) | linear(f"{name}proj_out", 2048, 2048)
        shapes |= norm(f"{name}norm_out", 2048) | perceiver(name, 2048, perceiver_depth, 2048)
    return shapes


def tiny_photomaker(second: bool) -> Shapes:
    """A PhotoMaker file with a small image tower (56 px) and the published text width."""
    return photomaker(second, width=64, depth=2, inner=96, patch=14, positions=17, hidden=40, perceiver_depth=1)


def photomaker_lora(modules: dict[str, tuple[int, int]], rank: int = 3, spelling: str = "processor") -> Shapes:
    """LoRA tensors of diffusers modules ``{name: (out, in)}`` in one of diffusers' three spellings."""
    shapes: Shapes = {}
    for module, (rows, columns) in modules.items():
        for half, shape in (("down", (rank, columns)), ("up", (rows, rank))):
            shapes[f"lora_weights.unet.{_lora_name(module, half, spelling)}"] = shape
    return shapes


def _lora_name(module: str, half: str, spelling: str) -> str:
    head, _, last = module.removesuffix(".0").rpartition(".")
    if spelling == "processor":
        return f"{head}.processor.{last}_lora.{half}.weight"
    if spelling == "layer":
        return f"{module}.lora.{half}.weight"
    return f"{module}.lora_{'A' if half == 'down' else 'B'}.weight"


def save(path: Path, shapes: Shapes, dtype: torch.dtype = torch.float32, **more: torch.Tensor) -> dict[str, Any]:
    """Write filled tensors as the two-level pickle of the published ``.bin`` files; return them."""
    tensors = filled_all(shapes, dtype) | more
    torch.save(nested_by_part(tensors), path)
    return tensors
