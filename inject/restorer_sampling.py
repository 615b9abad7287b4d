"""RestorerID's official DDIM loop through the host's samplers: noise levels, told timesteps, scaling at both ends.

In the host's terms the loop is Euler-ancestral with the same eta (the two are equal algebraically), on noise levels
that end at the first training step and not at zero.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.restorerid.schedule import TRAINED, tables
from ..faces.errors import LikenessError
from .patching import clone_model

# Relative distance within which a sigma counts as one of the official levels.
NEAR = 1e-4


class OfficialTimesteps:
    """Mixed into the host's model sampling: on the official noise levels the networks are told the official timesteps.

    A run that begins at the highest level begins with noise of unit size, and one that ends above zero gives its latent
    back in the model's own scale, as the official loop does. Other sigmas are as ever.
    """

    def set_official(self, levels: Tensor, timesteps: Tensor) -> None:
        """Rising levels (S,) and the timesteps (S,) told at them."""
        module: Any = self
        module.register_buffer("official_log_levels", levels.log().float(), persistent=False)
        module.register_buffer("official_timesteps", timesteps.float(), persistent=False)

    def timestep(self, sigma: Tensor) -> Tensor:
        """Sigmas (B,) to timesteps (B,)."""
        module: Any = self
        levels = module.official_log_levels.to(sigma.device)
        distance, nearest = (sigma.log().reshape(-1, 1) - levels).abs().min(dim=1)
        told = module.official_timesteps.to(sigma.device)[nearest].view(sigma.shape)
        usual = super().timestep(sigma)  # type: ignore[misc]
        return torch.where((distance < NEAR).view(sigma.shape), told, usual.to(told))

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The latent a run begins with."""
        module: Any = self
        highest = float(module.official_log_levels[-1])
        begins = abs(float(torch.as_tensor(sigma).log().max()) - highest) < NEAR
        return super().noise_scaling(sigma, noise, latent_image, max_denoise or begins)  # type: ignore[misc]

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """The latent a run gives back."""
        found = super().inverse_noise_scaling(sigma, latent)  # type: ignore[misc]
        return found / (1 + torch.as_tensor(sigma).to(found) ** 2).sqrt()


def with_official_timesteps(model: Any, steps: int) -> Any:
    """A clone of MODEL that is told the official timesteps of ``steps`` steps; those of an earlier call are replaced.

    Raises:
        LikenessError: too few or too many steps, or a model without SD1.5's thousand noise levels.
    """
    _check_steps(steps)
    base = model.get_model_object("model_sampling")
    known = getattr(base, "sigmas", None)
    table = tables(steps)
    if known is None or len(known) != TRAINED or not hasattr(base, "set_sigmas"):
        raise LikenessError(
            "RestorerID Sampler",
            expected=f"a model with {TRAINED} noise levels",
            found="another kind of sampling",
            cure="connect a model loaded from an SD1.5 checkpoint, without a node that changes its sampling",
        )
    again = isinstance(base, OfficialTimesteps)
    kind = type(base) if again else type("RestorerSampling", (OfficialTimesteps, type(base)), {})
    sampling = kind(model.model.model_config)
    sampling.set_sigmas(known)
    sampling.set_official(table.levels, torch.tensor(table.timesteps))
    clone = clone_model(model)
    clone.add_object_patch("model_sampling", sampling)
    return clone


def official_sigmas(steps: int) -> Tensor:
    """Falling noise levels (steps,) float32; the official loop's last iteration changes nothing and is left out."""
    _check_steps(steps)
    return tables(steps).levels.flip(0).float()


def official_sampler(eta: float = 1.0, **options: Any) -> Any:
    """The host's SAMPLER that equals DDIM with ``eta``."""
    samplers = importlib.import_module("comfy.samplers")
    return samplers.ksampler("euler_ancestral", {"eta": eta, **options})


def _check_steps(steps: int) -> None:
    if not 2 <= steps <= TRAINED:
        raise LikenessError(
            "RestorerID Sampler", expected=f"2 to {TRAINED} steps", found=str(steps), cure="set steps to 50"
        )
