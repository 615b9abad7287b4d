"""LAFR in the host: which adapter a socket holds, the host's VAE for training, and sampling in one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.lafr.adapter import LafrAdapter
from ..adapters.families.lafr.one_step import sampler_start
from .loaded import LoadedAdapter, trained_adapter
from .mean_latent import encode_mean

TIMESTEPS = 1000


def lafr_of(loaded: LoadedAdapter | None) -> LafrAdapter:
    """The LAFR adapter of a socket, loaded to its device.

    Raises:
        MissingModelFile: nothing is connected, or another adapter.
    """
    cure = "train one with 'Train LAFR' or tools/train_lafr.py, since its authors published no weights"
    adapter = trained_adapter(loaded, LafrAdapter, "Align Latent (LAFR)", "LAFR", cure)
    if loaded is not None:
        loaded.managed.load()
    return adapter


def vae_encode(vae: Any, pictures: Tensor, scale: float) -> Tensor:
    """Latents of pictures (B, 3, H, W) in 0..1 by the host's VAE (the mean, no random part), times ``scale``.

    Inside the host's inference mode, where its weights belong; clone the result before gradients need it.

    Raises:
        BaseModelMismatch: a VAE whose latents have not four channels.
    """
    return encode_mean(vae, pictures, "LAFR") * scale


def one_step(model: Any, samples: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
    """Where a sampler starts, and its two noise levels (2,), so that the model sees ``samples`` at ``timestep`` once.

    Raises:
        BaseModelMismatch: a model without the thousand timesteps of Stable Diffusion.
    """
    levels = getattr(model.get_model_object("model_sampling"), "sigmas", None)
    if not isinstance(levels, Tensor) or levels.shape != (TIMESTEPS,):
        raise BaseModelMismatch(
            "model for one-step restoration",
            expected=f"{TIMESTEPS} discrete noise levels (SD1.x, SD2.x)",
            found="none" if not isinstance(levels, Tensor) else f"{len(levels)}",
            cure="connect an SD1.x or SD2.x model",
        )
    sigma = float(levels[timestep])
    return sampler_start(samples, sigma), torch.tensor([sigma, 0.0])
