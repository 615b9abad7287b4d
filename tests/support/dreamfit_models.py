"""Tiny Flux models of the host, their calls, and small DreamFit files in the published layouts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from host_inprocess import engine, fill_seeded
from likeness_pack.adapters.families.dreamfit import layout
from torch import Tensor

# Latent channels 16 packed two by two; everything else a tiny Flux may choose.
TINY = {
    "in_channels": 64,
    "vec_in_dim": 32,
    "context_in_dim": 48,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 4,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    "depth": 2,
    "depth_single_blocks": 3,
}


def flux_model(hyper: Mapping[str, Any] = TINY, fill: Callable[[torch.nn.Module], object] | None = None) -> Any:
    """A ModelPatcher around the host's own Flux (upstream only), filled by ``fill`` or with seeded numbers."""
    engine()
    known = {name: value for name, value in hyper.items() if name in TINY}
    known |= {"image_model": "flux", "patch_size": 2, "in_channels": 16, "out_channels": 16, "dtype": torch.float32}
    config = importlib.import_module("comfy.supported_models").Flux(known)
    model = config.get_model({}, "", device=torch.device("cpu")).eval()
    (fill or _fill)(model.diffusion_model)
    management = importlib.import_module("comfy.model_management")
    patcher = importlib.import_module("comfy.model_patcher")
    return patcher.ModelPatcher(model, load_device=management.get_torch_device(), offload_device=torch.device("cpu"))


def _fill(network: torch.nn.Module) -> None:
    fill_seeded(network)
    for name, parameter in network.named_parameters():
        if name.endswith("norm.scale"):
            torch.nn.init.ones_(parameter)


def flux_latent(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Packed tokens (1, h * w, 64) as a latent (1, 16, 2h, 2w)."""
    h, w = grid
    return tokens.view(1, h, w, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(1, 16, 2 * h, 2 * w)


def flux_tokens(latent: Tensor) -> Tensor:
    """The inverse of `flux_latent`."""
    rows, channels, height, width = latent.shape
    parts = latent.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(rows, height // 2 * (width // 2), -1)


def flux_call(
    model: Any, x: Tensor, time: float, context: Tensor, pooled: Tensor, guidance: float, **options: Any
) -> Tensor:
    """One forward pass with the model's patches, after the host has loaded it."""
    importlib.import_module("comfy.model_management").load_models_gpu([model], force_patch_weights=True)
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [0], **options}
    with torch.inference_mode():
        return model.model.diffusion_model(
            x,
            torch.full((x.shape[0],), time),
            context=context,
            y=pooled,
            guidance=torch.tensor([guidance]),
            transformer_options=options,
        )


def write_unet_file(path: Path, unet: torch.nn.Module, base: bool = True, rank: int = 4, seed: int = 0) -> Path:
    """Write the SD1.5 file for a UNet of any width: LoRA, keys and values, and the UNet's own weights if ``base``."""
    generator = torch.Generator().manual_seed(seed)
    weights = unet.state_dict()
    tensors = {name: tensor.clone() for name, tensor in weights.items()} if base else {}
    for target in layout.unet_targets():
        shape = weights[target.weight].shape
        inner, outer = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
        for name, size in zip(layout.ends(target.source), (inner, outer), strict=True):
            tensors[name] = torch.randn(size, generator=generator) / (size[1] if len(size) == 2 else size[1] * 3) ** 0.5
    for block in layout.READ_BLOCKS:
        width = weights[f"{block}.attn1.to_k.weight"].shape[0]
        for name in (layout.REF_K, layout.REF_V):
            tensors[block + name] = torch.randn(width, width, generator=generator) / width**0.5
    torch.save({f"{layout.ENCODER}{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def write_dit_file(path: Path, hyper: Mapping[str, Any] = TINY, rank: int = 4, seed: int = 0) -> Path:
    """Write a Flux file for a DiT of any width."""
    generator = torch.Generator().manual_seed(seed)
    width = hyper["hidden_size"]
    inner = {"img_mlp_lora_2": 4 * width, "processor.ref_proj_lora": 5 * width}
    outer = {"img_mod.lin_lora": 6 * width, "img_mlp_lora_1": 4 * width, "modulation.lin_lora": 3 * width}
    tensors = {}
    for target in layout.dit_targets(hyper["depth"], hyper["depth_single_blocks"]):
        end = target.source.split(".", 2)[2]
        sizes = (rank, inner.get(end, width)), (outer.get(end, width), rank)
        for name, size in zip(layout.ends(target.source), sizes, strict=True):
            tensors[name] = torch.randn(size, generator=generator) / size[1] ** 0.5
    torch.save(tensors, path)
    return path
