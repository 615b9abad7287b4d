"""Key list of HunyuanVideo-Avatar's checkpoint, by formula: published names and depth, any width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .blocks import linear, norm
from .fill import Shapes, filled_all

HEAD = 128
TEXT, POOLED, SINUSOID = 4096, 768, 256
LATENT, PATCH = 16, 4
AUDIO_INPUTS, AUDIO_TOKENS, BUCKETS = 10 * 5 * 384, 4, 4
DOUBLE, SINGLE = 20, 40


def _embedder(name: str, inputs: int, width: int, first: str = "mlp.0", last: str = "mlp.2") -> Shapes:
    return linear(f"{name}.{first}", inputs, width) | linear(f"{name}.{last}", width, width)


def _patches(name: str, width: int) -> Shapes:
    return {f"{name}.proj.weight": (width, LATENT, 1, 2, 2), f"{name}.proj.bias": (width,)}


def _refiner(width: int, text: int) -> Shapes:
    shapes = linear("txt_in.input_embedder", text, width) | _embedder("txt_in.t_embedder", SINUSOID, width)
    shapes |= _embedder("txt_in.c_embedder", text, width, "linear_1", "linear_2")
    for name in (f"txt_in.individual_token_refiner.blocks.{number}" for number in range(2)):
        shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
        shapes |= linear(f"{name}.self_attn_qkv", width, 3 * width) | linear(f"{name}.self_attn_proj", width, width)
        shapes |= linear(f"{name}.mlp.fc1", width, 4 * width) | linear(f"{name}.mlp.fc2", 4 * width, width)
        shapes |= linear(f"{name}.adaLN_modulation.1", width, 2 * width)
    return shapes


def _double(number: int, width: int) -> Shapes:
    shapes: Shapes = {}
    for name in (f"double_blocks.{number}.{side}" for side in ("img", "txt")):
        shapes |= linear(f"{name}_mod.linear", width, 6 * width) | linear(f"{name}_attn_qkv", width, 3 * width)
        shapes |= {f"{name}_attn_q_norm.weight": (HEAD,), f"{name}_attn_k_norm.weight": (HEAD,)}
        shapes |= linear(f"{name}_attn_proj", width, width)
        shapes |= linear(f"{name}_mlp.fc1", width, 4 * width) | linear(f"{name}_mlp.fc2", 4 * width, width)
    return shapes


def _single(number: int, width: int) -> Shapes:
    name = f"single_blocks.{number}"
    shapes = linear(f"{name}.linear1", width, 7 * width) | linear(f"{name}.linear2", 5 * width, width)
    shapes |= {f"{name}.q_norm.weight": (HEAD,), f"{name}.k_norm.weight": (HEAD,)}
    return shapes | linear(f"{name}.modulation.linear", width, 3 * width)


def base(width: int = HEAD, double: int = DOUBLE, single: int = SINGLE, text: int = TEXT) -> Shapes:
    """HunyuanVideo's own part; ``width`` is a multiple of 128."""
    shapes = _patches("img_in", width) | _refiner(width, text) | _embedder("time_in", SINUSOID, width)
    shapes |= _embedder("vector_in", POOLED, width, "in_layer", "out_layer")
    for number in range(double):
        shapes |= _double(number, width)
    for number in range(single):
        shapes |= _single(number, width)
    shapes |= linear("final_layer.linear", width, PATCH * LATENT)
    return shapes | linear("final_layer.adaLN_modulation.1", width, 2 * width)


def added(width: int = HEAD, inner: int = 64, hidden: int = 32, adapters: int = DOUBLE // 2) -> Shapes:
    """What Avatar adds; adapter j belongs to double block ``2 j + 1``."""
    shapes = _patches("ref_in", width) | linear("before_proj", width, width)
    shapes |= linear("audio_proj.proj1", AUDIO_INPUTS, hidden) | linear("audio_proj.proj2", hidden, hidden)
    shapes |= linear("audio_proj.proj3", hidden, AUDIO_TOKENS * width) | norm("audio_proj.norm", width)
    for name in ("motion_exp", "motion_pose"):
        shapes |= _embedder(name, SINUSOID, width // BUCKETS)
    shapes |= _embedder("fps_proj", SINUSOID, width)
    for name in (f"audio_adapter_blocks.{number}" for number in range(adapters)):
        shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
        shapes |= linear(f"{name}.to_q", width, inner, bias=False) | linear(
            f"{name}.to_kv", width, 2 * inner, bias=False
        )
        shapes |= linear(f"{name}.to_out", inner, width, bias=False)
    return shapes


def checkpoint(width: int = HEAD, double: int = DOUBLE, single: int = SINGLE, text: int = TEXT) -> Shapes:
    """A whole file, in the order of the official one's parts."""
    return base(width, double, single, text) | added(width, adapters=double // 2)


def filled(shapes: Shapes, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors of the shapes; scales of the heads' norms lie around 1 as those of other norms do."""
    tensors = filled_all(shapes, dtype)
    return {name: _around_one(name, tensor) for name, tensor in tensors.items()}


def _around_one(name: str, tensor: Tensor) -> Tensor:
    # Modulation begins near zero in trained models: unit gates in sixty blocks in a row would drown the picture.
    calm = name.endswith(("_mod.linear.weight", "modulation.linear.weight", "adaLN_modulation.1.weight"))
    return tensor * 0.3 if calm else tensor


def packed(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """As the official pickle holds them."""
    return {"module": dict(tensors)}
