"""Small adapter files in the published layouts, for the widths of a tiny base model, written to disk and read as a
user's file is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

# Width of each transformer block as a multiple of the model's channels, in file order: down, up, middle.
SD15_MULTIPLES = [1, 1, 2, 2, 4, 4] + [4, 4, 4, 2, 2, 2, 1, 1, 1] + [4]
SDXL_MULTIPLES = [2] * 4 + [4] * 20 + [4] * 30 + [2] * 6 + [4] * 10


def widths(kind: str, model_channels: int = 32) -> list[int]:
    """Width of each attn2 layer of a tiny model in file order."""
    multiples = SD15_MULTIPLES if kind == "SD15" else SDXL_MULTIPLES
    return [model_channels * multiple for multiple in multiples]


class _Filler:
    """Seeded tensors, scaled as trained weights are."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> Tensor:
        return torch.randn(rows, columns, generator=self.generator) * gain / columns**0.5

    def norm(self, name: str, width: int) -> dict[str, Tensor]:
        noise = torch.randn(2, width, generator=self.generator) * 0.1
        return {f"{name}.weight": 1 + noise[0], f"{name}.bias": noise[1]}

    def linear(self, name: str, rows: int, columns: int) -> dict[str, Tensor]:
        bias = torch.randn(rows, generator=self.generator) * 0.1
        return {f"{name}.weight": self.matrix(rows, columns), f"{name}.bias": bias}


def write_faceid(
    path: Path, kind: str, model_channels: int = 32, rank: int = 4, seed: int = 0, tokens: int = 4
) -> Path:
    """Write a plain FaceID file (nested .bin with LoRA on every attention) for a tiny model."""
    fill, context = _Filler(seed), 768 if kind == "SD15" else 2048
    projection = {
        **fill.linear("proj.0", 1024, 512),
        **fill.linear("proj.2", tokens * context, 1024),
        **fill.norm("norm", context),
    }
    layers: dict[str, Tensor] = {}
    for number, width in enumerate(widths(kind, model_channels)):
        for attention in (0, 1):
            index, inner = 2 * number + attention, context if attention else width
            ends = {"q": (width, width), "k": (width, inner), "v": (width, inner), "out": (width, width)}
            for end, (rows, columns) in ends.items():
                layers[f"{index}.to_{end}_lora.down.weight"] = fill.matrix(rank, columns)
                layers[f"{index}.to_{end}_lora.up.weight"] = fill.matrix(rows, rank, 0.1)
        layers[f"{2 * number + 1}.to_k_ip.weight"] = fill.matrix(width, context)
        layers[f"{2 * number + 1}.to_v_ip.weight"] = fill.matrix(width, context)
    torch.save({"image_proj": projection, "ip_adapter": layers}, path)
    return path


def block_paths() -> list[str]:
    """The sixteen SD1.5 transformer blocks by diffusers name, in file order."""
    down = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    up = [f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)]
    return [f"{name}.transformer_blocks.0" for name in [*down, *up, "mid_block.attentions.0"]]


def write_fact(path: Path, layer_widths: Sequence[int] | None = None, seed: int = 0, gate: float = 0.8) -> Path:
    """Write a FACT v1 file (flat .ckpt) whose gated layers have the given widths; the projector has its published
    widths and one of its four layers.
    """
    fill = _Filler(seed)
    tensors = {f"local_fac_prj.{name}": tensor for name, tensor in _resampler(fill).items()}
    for block, width in zip(block_paths(), layer_widths or widths("SD15"), strict=True):
        prefix = f"{block}.attn2.processor."
        tensors |= {prefix + name: tensor for name, tensor in _gated_layer(fill, width, gate).items()}
    torch.save(tensors, path)
    return path


def _resampler(fill: _Filler) -> dict[str, Tensor]:
    tensors = {
        "latents": fill.matrix(16, 1024)[None],
        **fill.linear("proj_in", 1024, 512),
        **fill.linear("proj_out", 768, 1024),
        **fill.norm("norm_out", 768),
    }
    tensors |= fill.norm("layers.0.0.norm1", 1024) | fill.norm("layers.0.0.norm2", 1024)
    tensors |= fill.norm("layers.0.1.0", 1024)
    tensors["layers.0.0.to_q.weight"] = fill.matrix(768, 1024)
    tensors["layers.0.0.to_kv.weight"] = fill.matrix(1536, 1024)
    tensors["layers.0.0.to_out.weight"] = fill.matrix(1024, 768)
    tensors["layers.0.1.1.weight"] = fill.matrix(4096, 1024)
    tensors["layers.0.1.3.weight"] = fill.matrix(1024, 4096)
    return tensors


def _gated_layer(fill: _Filler, width: int, gate: float) -> dict[str, Tensor]:
    return {
        "alpha_attn": torch.tensor(gate),
        "alpha_dense": torch.tensor(-gate / 2),
        **fill.linear("linear", width, 768),
        "attn.to_q.weight": fill.matrix(width, width),
        "attn.to_k.weight": fill.matrix(width, width),
        "attn.to_v.weight": fill.matrix(width, width),
        **fill.linear("attn.to_out.0", width, width),
        **fill.linear("ff.net.0.proj", 8 * width, width),
        **fill.linear("ff.net.2", width, 4 * width),
        **fill.norm("norm1", width),
        **fill.norm("norm2", width),
    }
