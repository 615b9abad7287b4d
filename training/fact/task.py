"""The training step that FACT and FaceID share, over a frozen diffusers UNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...adapters.families.restorerid.schedule import TRAINED, alphas_cumprod
from ..loop import TOTAL
from ..seeds import generator_for
from .attached import AttachedGatedLayers, AttachedKeysValues, freeze
from .curriculum import kept_rows, shuffled_rows
from .fair import enlarged, fair
from .options import AdapterOptions
from .people import People


class AdapterModel(Protocol):
    """What is trained: the adapter's networks, and their layers in the UNet."""

    @property
    def network(self) -> nn.Module:
        """Everything that is trained."""

    @property
    def attached(self) -> AttachedGatedLayers | AttachedKeysValues:
        """The layers in the UNet."""

    def tokens(self, conditions: Tensor) -> Tensor:
        """Face tokens (B, T, C) of conditions; zeros are the negative condition."""

    def file_tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The adapter in its published layout."""


def biased_timesteps(count: int, bias: float, generator: torch.Generator) -> Tensor:
    """(B,) timesteps 0..999; with a bias of 1 half of them are above 749."""
    if bias == 0:
        return torch.randint(TRAINED, (count,), generator=generator)
    drawn = 1 - torch.rand(count, generator=generator) ** (1 + bias)
    return (drawn * TRAINED).long().clamp(max=TRAINED - 1)


class AdapterTask:
    """Noise prediction with a frozen base model; see `loop.Task`.

    Material and random numbers stay on the CPU, so that every device draws the same; a step's batch goes to the UNet's.

    Args:
        unet: the diffusers UNet the model's layers are attached to.
        model: the adapter.
        people: the material.
        options: how.
    """

    def __init__(self, unet: nn.Module, model: AdapterModel, people: People, options: AdapterOptions) -> None:
        freeze(unet)
        self._unet, self._model, self._people, self._told = unet, model, people, options
        self._masks = enlarged(people.masks, options.mask_growth)
        self._share = alphas_cumprod().float()
        self._device = next(unet.parameters()).device
        if isinstance(model.attached, AttachedGatedLayers):
            model.attached.close_coarse(options.least_tokens, *people.latents.shape[-2:])

    @property
    def network(self) -> nn.Module:
        """The adapter's networks."""
        return self._model.network

    @property
    def options(self) -> Mapping[str, Any]:
        """What the run was started with."""
        return self._told.plain()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Everything without decay; the gates at their own rate."""
        named = [(name, one) for name, one in self.network.named_parameters() if one.requires_grad]
        gates = [one for name, one in named if name.endswith(("alpha_attn", "alpha_dense"))]
        others = [one for name, one in named if not name.endswith(("alpha_attn", "alpha_dense"))]
        groups: list[dict[str, Any]] = [{"params": others, "weight_decay": 0.0}]
        if gates:
            groups.append({"params": gates, "weight_decay": 0.0, "lr": self._told.gate_rate})
        return groups

    def losses(self, step: int) -> dict[str, Tensor]:
        """Mean square error of the noise, and FAIR for gated layers."""
        told, people = self._told, self._people
        generator = generator_for(told.seed, "adapter", step)
        rows = people.rows_of_persons(told.persons, told.pictures, generator)
        timesteps = biased_timesteps(len(rows), told.noise_bias, generator)
        latents = people.latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator)
        exchanged = shuffled_rows(people.persons[rows], told.shuffle.at(step, told.steps), generator)
        conditions = people.conditions[rows[exchanged]].float()
        kept = kept_rows(len(rows), told.drop.at(step, told.steps), generator)
        conditions = conditions * kept.view(-1, *[1] * (conditions.ndim - 1))
        text = people.prompts(rows) * kept_rows(len(rows), told.text_drop, generator)
        share = self._share[timesteps][:, None, None, None]
        noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
        here = self._device
        with self._model.attached.reading(self._model.tokens(conditions.to(here))):
            predicted = self._unet(noisy.to(here), timesteps.to(here), encoder_hidden_states=text.to(here)).sample
        return self._with_fair(functional.mse_loss(predicted, noise.to(here)), rows)

    def _with_fair(self, error: Tensor, rows: Tensor) -> dict[str, Tensor]:
        attached = self._model.attached
        if not isinstance(attached, AttachedGatedLayers):
            return {TOTAL: error, "noise": error}
        increments = attached.taken_increments()
        told, masks = self._told, self._masks[rows].to(self._device)
        outside = fair(increments, masks, told.fair_norm, told.fair_reduction, told.fair_mask)
        total = error + told.fair_weight * outside if told.fair_weight else error
        return {TOTAL: total, "noise": error, "fair": outside}

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing further: every random number depends on seed and step alone."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing further."""
