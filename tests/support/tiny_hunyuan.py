"""A tiny HunyuanVideo of the host's own class, and conditioning for it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from host_inprocess import engine, fill_seeded
from torch import Tensor

WIDTH, TEXT, POOLED = 64, 40, 24
DOUBLE_BLOCKS, SINGLE_BLOCKS = 20, 2


def need_hunyuan() -> None:
    """Skip where this ComfyUI has no HunyuanVideo."""
    if not engine().has_wrappers:
        pytest.skip("needs a newer host: this ComfyUI has no HunyuanVideo")


def tiny_hunyuan(double_blocks: int = DOUBLE_BLOCKS, single_blocks: int = SINGLE_BLOCKS) -> Any:
    """A ModelPatcher around the host's HunyuanVideo without guidance embedder: 64 channels, two heads of 32."""
    engine()
    supported = importlib.import_module("comfy.supported_models")
    management = importlib.import_module("comfy.model_management")
    config = supported.HunyuanVideo(
        {
            "image_model": "hunyuan_video",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": POOLED,
            "context_in_dim": TEXT,
            "hidden_size": WIDTH,
            "mlp_ratio": 4.0,
            "num_heads": 2,
            "depth": double_blocks,
            "depth_single_blocks": single_blocks,
            "axes_dim": [8, 12, 12],
            "theta": 256,
            "patch_size": [1, 2, 2],
            "qkv_bias": True,
            "guidance_embed": False,
            "byt5": False,
            "meanflow": False,
            "dtype": torch.float32,
        }
    )
    model = config.get_model({}, "", device=torch.device("cpu")).eval()
    fill_seeded(model.diffusion_model, 3)
    patcher = importlib.import_module("comfy.model_patcher")
    return patcher.ModelPatcher(model, load_device=management.get_torch_device(), offload_device=torch.device("cpu"))


def hunyuan_conditioning(seed: int = 1, tokens: int = 9, **extra: Any) -> list[list[Any]]:
    """Conditioning of seeded noise."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, TEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, POOLED, generator=generator), **extra}]]


def clip_noise(frames: int, height: int = 4, width: int = 4, seed: int = 3) -> Tensor:
    """Noise (1, 16, frames, height, width)."""
    return torch.randn(1, 16, frames, height, width, generator=torch.Generator().manual_seed(seed))


def run_guider(guider: Any, noise: Tensor, sigmas: Tensor, sampler: str = "euler") -> Tensor:
    """Sample as SamplerCustomAdvanced does, of an empty latent."""
    samplers = importlib.import_module("comfy.samplers")
    with torch.inference_mode():
        out: Tensor = guider.sample(
            noise, torch.zeros_like(noise), samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=0
        )
    return out
