"""The host's small VAE for SD1.x and SD2.x (TAESD) with seeded weights."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from host_inprocess import engine, fill_seeded
from torch import Tensor

SCALE = 0.18215


def small_vae_tensors() -> dict[str, Tensor]:
    """What a file of it holds."""
    engine()
    network = importlib.import_module("comfy.taesd.taesd").TAESD()
    fill_seeded(network)
    return {**network.state_dict(), "vae_scale": torch.tensor(SCALE)}


def small_vae() -> Any:
    """The host's VAE value."""
    tensors = small_vae_tensors()
    with torch.inference_mode():
        return importlib.import_module("comfy.sd").VAE(sd=tensors)
