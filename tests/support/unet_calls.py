"""Calls of a model's UNet with chosen rows, as the sampler would make them."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from host_inprocess import CONTEXT_WIDTH
from likeness_pack.inject.call_state import CallState
from torch import Tensor


def unet_inputs(kind: str, rows: tuple[int, ...], per_chunk: int = 1, size: int = 8, seed: int = 5) -> dict[str, Any]:
    """Inputs of one forward pass; a row's content depends on whether it is positive or negative alone."""
    generator = torch.Generator().manual_seed(seed)
    width, adm = CONTEXT_WIDTH[kind], 2816
    latent = torch.randn(per_chunk, 4, size, size, generator=generator)
    context = {row: torch.randn(1, 11, width, generator=generator).expand(per_chunk, -1, -1) for row in (0, 1)}
    pooled = torch.randn(1, adm, generator=generator)
    count = len(rows) * per_chunk
    return {
        "x": latent.repeat(len(rows), 1, 1, 1),
        "timesteps": torch.full((count,), 501.0),
        "context": torch.cat([context[row] for row in rows]),
        "y": pooled.expand(count, -1) if kind == "SDXL" else None,
    }


def load_model(model: Any) -> None:
    """Have the host load and patch the model's weights, as sampling does."""
    importlib.import_module("comfy.model_management").load_models_gpu([model], force_patch_weights=True)


def call_unet(
    model: Any,
    kind: str,
    rows: tuple[int, ...],
    state: CallState | None = None,
    per_chunk: int = 1,
    size: int = 8,
    loaded: bool = False,
) -> Tensor:
    """One forward pass through the host's UNet with the model's patches; ``loaded`` says that the host has it in
    place.
    """
    if not loaded:
        load_model(model)
    inputs = unet_inputs(kind, rows, per_chunk, size)
    options = dict(model.model_options["transformer_options"])
    options |= {
        "cond_or_uncond": list(rows),
        "sigmas": torch.full((1,), 3.0),
        "original_shape": list(inputs["x"].shape),
    }
    if state is not None:
        options["likeness_call"] = state
    dtype = model.model_dtype()
    with torch.inference_mode():
        named = {name: value.to(dtype) for name, value in inputs.items() if value is not None and name != "timesteps"}
        return model.model.diffusion_model(timesteps=inputs["timesteps"], transformer_options=options, **named)


def patched_calls(model: Any, kind: str, rows: tuple[int, ...]) -> int:
    """How many layers ran our patch in one forward pass."""
    state = CallState()
    call_unet(model, kind, rows, state)
    return sum(len(layers) for layers in state.called.values())
