"""DreamID-V in the host's own Wan (upstream only): files of the published layouts, models of them, and their calls."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from host_inprocess import engine
from safetensors.torch import save_file
from torch import Tensor

TEXT_TOKENS = 512


def load_file(path: Path, tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """Write a file, and load it as a user does: MODEL and adapter."""
    from likeness_pack.adapters import registry
    from likeness_pack.inject.dreamid_v import load_model
    from likeness_pack.inject.loaded import LoadedAdapter

    engine()
    save_file(dict(tensors), path)
    adapter = registry.load(path, kind="adapter")
    return load_model(adapter), LoadedAdapter(adapter)


def conditions(model: Any, noise: Tensor, text: Tensor, clip: Tensor, photo: Tensor) -> dict[str, Tensor]:
    """What the host makes of a conditioning for the network; latents in the VAE's own scale.

    Args:
        model: MODEL.
        noise: (1, 16, T, h, w).
        text: (1, tokens, 4096).
        clip: (1, 32, T, h, w) frames and mask.
        photo: (1, 16, 1, h, w).
    """
    made = model.model.extra_conds(
        noise=noise, device=noise.device, cross_attn=text, concat_latent_image=clip, reference_latents=[photo]
    )
    return {name: value.cond for name, value in made.items() if name in ("c_concat", "c_crossattn", "reference_latent")}


def wan_call(model: Any, x: Tensor, time: float, made: Mapping[str, Tensor], **options: Any) -> Tensor:
    """One forward pass with the model's patches, after the host has loaded it: the velocity (rows, 16, T, h, w)."""
    importlib.import_module("comfy.model_management").load_models_gpu(
        [model, *model.model_patches_models()], force_patch_weights=True
    )
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [0] * x.shape[0], **options}
    with torch.inference_mode():
        return model.model.diffusion_model(
            torch.cat((x, made["c_concat"]), dim=1),
            torch.full((x.shape[0],), time),
            context=made["c_crossattn"],
            transformer_options=options,
            reference_latent=made["reference_latent"],
        )
