"""DreamID-V's sampling through the host: its UniPC as a SAMPLER, its noise levels as SIGMAS, and one run of both.

The host's own ``uni_pc`` is made for models that predict noise, and tells the network unrounded times; neither gives
the authors' numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.dreamid_v import unipc
from . import host
from .dreamid_v_conditioning import Conditioning

# Steps of the authors' command line, by whether the file has the pose branch.
STEPS = {True: 12, False: 16}
GUIDANCE = 4.0
MAX_STEPS = 200


def official_sigmas(steps: int, shift: float = unipc.SHIFT) -> Tensor:
    """Falling noise levels (steps + 1,)."""
    return unipc.noise_levels(steps, shift)


def official_sampler() -> Any:
    """The host's SAMPLER that equals the authors'."""
    return importlib.import_module("comfy.samplers").KSAMPLER(_walk)


def _walk(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
) -> Tensor:
    """What the host calls: ``model(x, sigma)`` gives the clean latent."""
    levels = sigmas.detach().cpu()
    told = unipc.told_timesteps(levels) / unipc.TRAINED
    latent = getattr(model, "latent_image", None)
    if latent is not None and not bool(latent.any()):
        # The host starts with the level's part of the noise; the authors with all of it.
        x = x / sigmas[0]

    def velocity(x: Tensor, number: int) -> Tensor:
        sigma = float(told[number])
        found = model(x, x.new_full((x.shape[0],), sigma), **(extra_args or {}))
        return (x - found) / sigma

    def seen(number: int, clean: Tensor, x: Tensor) -> None:
        if callback is not None:
            level = sigmas[number]
            callback({"x": x, "i": number, "sigma": level, "sigma_hat": level, "denoised": clean})

    return unipc.sample(x, levels, velocity, seen)


def cfg_of(guidance: float) -> float:
    """The host's cfg for the authors' guidance: ``v_c + g (v_c - v_u)`` is ``v_u + (g + 1) (v_c - v_u)``."""
    return guidance + 1.0


def run(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    latent: Tensor,
    seed: int,
    sigmas: Tensor,
    guidance: float,
    stepped: Callable[[], None],
) -> Tensor:
    """Sample an empty latent (1, 16, T, h, w) as 'SamplerCustom' does, with the authors' sampler.

    ``stepped`` is called after every step; a cancel stops there.
    """
    sampling = importlib.import_module("comfy.sample")
    noise = sampling.prepare_noise(latent, seed)

    def after(*_: Any) -> None:
        stepped()
        host.stop_if_cancelled()

    host.stop_if_cancelled()
    with torch.inference_mode():
        found: Tensor = sampling.sample_custom(
            model,
            noise,
            cfg_of(guidance),
            official_sampler(),
            sigmas,
            positive,
            negative,
            latent,
            callback=after,
            disable_pbar=True,
            seed=seed,
        )
    return found
