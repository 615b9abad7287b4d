"""The small base model: a UNet of SD1.5's block layout over latents of drawn faces, told attributes instead of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...adapters.families.restorerid.schedule import TRAINED, alphas_cumprod
from ..drawn_faces import Attributes
from ..loop import TOTAL
from ..packages import diffusers
from ..seeds import generator_for
from .conditioning import CONTEXT, AttributeTokens

HEADS = 8


def small_unet(widths: Sequence[int], context: int = CONTEXT) -> Any:
    """A UNet of diffusers with SD1.5's blocks; four widths, the first at the latents' own size."""
    return diffusers().UNet2DConditionModel(
        sample_size=8, block_out_channels=tuple(widths), cross_attention_dim=context, attention_head_dim=HEADS
    )


def noisy(latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Latents (B, 4, h, w) at timesteps (B,) of SD1.5's schedule."""
    share = alphas_cumprod().to(latents)[timesteps][:, None, None, None]
    return share.sqrt() * latents + (1 - share).sqrt() * noise


class BaseModel(nn.Module):
    """UNet and attribute tokens, which are trained together.

    Args:
        widths: of the UNet's four levels.
        context: channels of the tokens.
    """

    def __init__(self, widths: Sequence[int], context: int = CONTEXT) -> None:
        super().__init__()
        self.unet = small_unet(widths, context)
        self.prompt = AttributeTokens(context)

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise in latents (B, 4, h, w) at timesteps (B,), told tokens (B, T, C)."""
        predicted: Tensor = self.unet(latents, timesteps, encoder_hidden_states=tokens).sample
        return predicted


class BaseTask:
    """Noise prediction over encoded portraits; a part of the prompts is dropped for guidance.

    Args:
        portraits: what `portrait_data.encode_portraits` returns.
        widths: of the UNet.
        batch: portraits of a step.
        seed: of the run.
        prompt_drop: share of the rows that are told nothing.
    """

    def __init__(
        self, portraits: Mapping[str, Tensor], widths: Sequence[int], batch: int, seed: int, prompt_drop: float = 0.1
    ) -> None:
        self._latents, self._attributes = portraits["latents"].float(), portraits["attributes"]
        self._batch, self._seed, self._drop = batch, seed, prompt_drop
        self._options = {"widths": list(widths), "batch": batch, "seed": seed, "prompt_drop": prompt_drop}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "base").initial_seed())
            self._network = BaseModel(widths)

    @property
    def network(self) -> BaseModel:
        """UNet and tokens."""
        return self._network

    @property
    def options(self) -> Mapping[str, Any]:
        """What the run was started with."""
        return self._options

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All weights."""
        return [{"params": list(self._network.parameters()), "weight_decay": 0.001}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """Mean square error of the noise."""
        generator = generator_for(self._seed, "noise", step)
        rows = torch.randint(len(self._latents), (self._batch,), generator=generator)
        timesteps = torch.randint(TRAINED, (self._batch,), generator=generator)
        noise = torch.randn(self._latents[rows].shape, generator=generator)
        told = (torch.rand(self._batch, 1, 1, generator=generator) >= self._drop).float()
        tokens = self._network.prompt(Attributes(self._attributes[rows])) * told
        predicted = self._network(noisy(self._latents[rows], noise, timesteps), timesteps, tokens)
        return {TOTAL: functional.mse_loss(predicted, noise)}

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing further."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing further."""
