"""Small PuLID files in the published layouts, identities for them, and a tiny Flux of the host's own class."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from host_inprocess import engine, fill_seeded
from likeness_pack.adapters.identity import Identity
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes, filled_all
from safetensors.torch import save_file
from tiny_adapters import widths
from torch import Tensor

EVA_WIDTH, IMAGE_WIDTH, PATCHES = 8, 16, 7
ID_WIDTH = 512 + EVA_WIDTH
HIDDEN, FORMER_WIDTH = 24, 64
CONTEXT = 2048

FLUX_WIDTH, FLUX_TEXT, FLUX_POOLED = 64, 40, 24
DOUBLE_BLOCKS, SINGLE_BLOCKS = 19, 38


def pulid_identity(seed: int = 0, photos: int = 1) -> Identity:
    """An antelopev2 identity with EVA-CLIP features of the tiny widths."""
    generator = torch.Generator().manual_seed(700 + seed)
    pooled = torch.randn(photos, EVA_WIDTH, generator=generator)
    features = {
        "embedding": torch.randn(photos, 512, generator=generator),
        "eva_pooled": pooled / pooled.norm(dim=-1, keepdim=True),
        "eva_hidden": torch.randn(photos, 5, PATCHES, IMAGE_WIDTH, generator=generator),
    }
    return Identity("arcface_antelopev2", features, photos=("0" * 64,) * photos)


def mapping(name: str, inputs: int, outputs: int) -> Shapes:
    """Three linear layers with two norms."""
    shapes = linear(f"{name}.0", inputs, HIDDEN) | norm(f"{name}.1", HIDDEN)
    shapes |= linear(f"{name}.3", HIDDEN, HIDDEN) | norm(f"{name}.4", HIDDEN)
    return shapes | linear(f"{name}.6", HIDDEN, outputs)


def encoder_v1(prefix: str) -> Shapes:
    """IDEncoder: five tokens of the face vector, one for each of five scales."""
    shapes = mapping(f"{prefix}body", ID_WIDTH, 5 * CONTEXT)
    for scale in range(5):
        shapes |= mapping(f"{prefix}mapping_{scale}", IMAGE_WIDTH, CONTEXT)
        shapes |= mapping(f"{prefix}mapping_patch_{scale}", IMAGE_WIDTH, CONTEXT)
    return shapes


def encoder_former(prefix: str, queries: int = 6, width: int = CONTEXT) -> Shapes:
    """IDFormer of five layers."""
    shapes: Shapes = {f"{prefix}latents": (1, queries, FORMER_WIDTH), f"{prefix}proj_out": (FORMER_WIDTH, width)}
    shapes |= perceiver(prefix, FORMER_WIDTH, 5, FORMER_WIDTH)
    for scale in range(5):
        shapes |= mapping(f"{prefix}mapping_{scale}", IMAGE_WIDTH, FORMER_WIDTH)
    return shapes | mapping(f"{prefix}id_embedding_mapping", ID_WIDTH, 5 * FORMER_WIDTH)


def sdxl_shapes(version: str, model_channels: int = 32, community: bool = False) -> Shapes:
    """A whole file for a tiny SDXL."""
    encoder, attention, key, value = (
        ("image_proj.", "ip_adapter.", "to_k_ip", "to_v_ip")
        if community
        else ("id_adapter.", "id_adapter_attn_layers.", "id_to_k", "id_to_v")
    )
    shapes = encoder_v1(encoder) if version == "v1" else encoder_former(encoder)
    for number, width in enumerate(widths("SDXL", model_channels)):
        for name in (key, value):
            shapes |= linear(f"{attention}{2 * number + 1}.{name}", CONTEXT, width, bias=False)
    return shapes


def flux_shapes(modules: int = 20, width: int = FLUX_WIDTH, id_width: int = 48) -> Shapes:
    """A whole file for a tiny Flux; one head of 128 in each module."""
    shapes = encoder_former("pulid_encoder.", width=id_width)
    for number in range(modules):
        name = f"pulid_ca.{number}"
        shapes |= norm(f"{name}.norm1", id_width) | norm(f"{name}.norm2", width)
        shapes |= linear(f"{name}.to_q", width, 128, bias=False) | linear(f"{name}.to_kv", id_width, 256, bias=False)
        shapes |= linear(f"{name}.to_out", 128, width, bias=False)
    return shapes


def write(path: Path, shapes: Shapes, dtype: torch.dtype = torch.float32) -> Path:
    """Write a safetensors file, or a flat pickle for another suffix."""
    tensors: dict[str, Tensor] = filled_all(shapes, dtype)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


def tiny_flux(
    double_blocks: int = DOUBLE_BLOCKS, single_blocks: int = SINGLE_BLOCKS, dtype: torch.dtype = torch.float32
) -> Any:
    """A ModelPatcher around the host's own Flux: published depth, 64 channels, two heads of 32."""
    engine()
    supported = importlib.import_module("comfy.supported_models")
    management = importlib.import_module("comfy.model_management")
    config = supported.Flux(
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": FLUX_POOLED,
            "context_in_dim": FLUX_TEXT,
            "hidden_size": FLUX_WIDTH,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": double_blocks,
            "depth_single_blocks": single_blocks,
            "axes_dim": [8, 12, 12],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "guidance_embed": True,
            "dtype": dtype,
        }
    )
    model = config.get_model({}, "", device=torch.device("cpu")).eval()
    fill_seeded(model.diffusion_model, 3)
    patcher = importlib.import_module("comfy.model_patcher")
    return patcher.ModelPatcher(model, load_device=management.get_torch_device(), offload_device=torch.device("cpu"))


def flux_conditioning(batch: int = 1, seed: int = 1, tokens: int = 9, **extra: Any) -> list[list[Any]]:
    """Conditioning of seeded noise for the tiny Flux."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, tokens, FLUX_TEXT, generator=generator)
    pooled = torch.randn(batch, FLUX_POOLED, generator=generator)
    return [[context, {"pooled_output": pooled, "guidance": 4.0, **extra}]]


def sample_flux(
    model: Any, steps: int = 2, cfg: float = 1.0, size: tuple[int, int] = (8, 6), batch: int = 1, **extra: Any
) -> Tensor:
    """Sample as the KSampler node does; the latent is (batch, 16, H, W) of zeros."""
    engine()
    sampling = importlib.import_module("comfy.sample")
    latent = torch.zeros(batch, 16, *size)
    with torch.inference_mode():
        return sampling.sample(
            model,
            sampling.prepare_noise(latent, 5),
            steps,
            cfg,
            "euler",
            "simple",
            flux_conditioning(seed=1, **extra),
            flux_conditioning(seed=2, **extra),
            latent,
            disable_pbar=True,
            seed=5,
        )
