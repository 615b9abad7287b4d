"""The appearance pass: beside each step of a picture a pass of the exemplar, whose layers' inputs are attended to.

The exemplar's latents at every noise level are known before sampling (`exemplar`), so a pass depends on nothing but the
noise level and the prompt, and any sampler may run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import PatchIncomplete
from ..faces.errors import LikenessError
from . import beneath
from .host import has_wrappers, model_management
from .memo import Memo
from .patching import clone_model
from .rows import row_pattern
from .schedule import StepRange
from .shared import Shared

BANKS_KEY = "likeness_exemplar_banks"
_CAPTURE_KEY = "likeness_exemplar_capture"
Key = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class Trajectory(Shared):
    """The exemplar's latent at each noise level.

    Attributes:
        sigmas: (S,) rising, float32, S >= 2.
        latents: (S, 4, H, W), each as the network is given it (scaled to the variance of the time).
    """

    sigmas: Tensor
    latents: Tensor
    _placed: Memo[tuple[Tensor, Tensor]] = field(default_factory=lambda: Memo(limit=2), repr=False)

    def at(self, sigma: Tensor) -> Tensor:
        """The latent (1, 4, H, W) at a noise level (1,), linear between two known ones; reads nothing back."""
        device = sigma.device
        sigmas, latents = self._placed.get(device, lambda: (self.sigmas.to(device), self.latents.to(device)))
        sigma = sigma.float()
        upper = torch.searchsorted(sigmas, sigma).clamp(1, len(sigmas) - 1)
        low, high = sigmas[upper - 1], sigmas[upper]
        share = ((sigma - low) / (high - low)).clamp(0, 1).view(1, 1, 1, 1)
        return torch.lerp(latents[upper - 1], latents[upper], share)


@dataclass(frozen=True, eq=False)
class AppearanceModel(Shared):
    """The MODEL that sees the exemplar; `ForwardGuard` has it loaded beside the one that samples.

    Attributes:
        patcher: a clone with `capturing` patches.
        resident: whether it has the weights of the sampling MODEL, which the host has loaded already.
    """

    patcher: Any
    resident: bool

    def load_beside(self) -> None:
        """Have an older host load the model; newer ones are told by the wrapper."""
        if not self.resident:
            model_management().load_models_gpu([self.patcher])

    def forward(self, x: Tensor, sigma: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        """One pass through the model and its wrappers; (B, 4, H, W), the denoised latents."""
        model, wrapper = self.patcher.model, self.patcher.model_options.get("model_function_wrapper")
        args = {
            "input": x,
            "timestep": sigma,
            "c": dict(conditions),
            "cond_or_uncond": conditions["transformer_options"]["cond_or_uncond"],
        }
        return beneath.model_call(wrapper, model.apply_model, args)


class CaptureNorm(Shared):
    """The ``attn1_patch`` that notes what each self-attention is given, rounded to float16 as the authors do."""

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]) -> tuple[Tensor, ...]:
        banks = extra.get(_CAPTURE_KEY)
        if banks is not None:
            banks[(*extra["block"], extra["block_index"])] = n.to(torch.float16).to(n.dtype)
        return n, context, value


@dataclass(frozen=True, eq=False)
class ExemplarPass(Shared):
    """The host's ``model_function_wrapper`` that runs the appearance pass; keeps and calls the one that was there.

    Attributes:
        model: sees the exemplar.
        trajectory: its latents.
        layers: number of self-attention layers that must be captured.
        steps: when it acts.
        previous: the wrapper found on the model, or None.
    """

    model: AppearanceModel
    trajectory: Trajectory
    layers: int
    steps: StepRange
    previous: Callable[..., Any] | None

    def models(self) -> list[Any]:
        """Patchers that hosts with wrappers load together with the model."""
        wrappers = (self.model.patcher.model_options.get("model_function_wrapper"), self.previous)
        beneath = [model for wrapper in wrappers for model in getattr(wrapper, "models", list)()]
        return beneath if self.model.resident else [self.model.patcher, *beneath]

    def __call__(self, apply_model: Callable[..., Any], args: dict[str, Any], **kwargs: Any) -> Any:
        options = args["c"].get("transformer_options", {})
        if self.steps.active(options):
            if not has_wrappers():
                self.model.load_beside()
            options = {**options, BANKS_KEY: self.banks(args)}
            args = {**args, "c": {**args["c"], "transformer_options": options}}
        return beneath.model_call(self.previous, apply_model, args)

    def banks(self, args: Mapping[str, Any]) -> dict[Key, Tensor]:
        """The inputs (chunks, L, C) of each self-attention of the exemplar, one row for each chunk of this call.

        Raises:
            LikenessError: the picture is not of the exemplar's size.
            PatchIncomplete: another node keeps layers from being seen.
        """
        conditions = args["c"]
        options = conditions.get("transformer_options", {})
        pattern, per_chunk = row_pattern(options, args["input"].shape[0])
        sigma = args["timestep"][:1]
        latent = self.trajectory.at(sigma)
        self._check_size(args["input"], latent)
        # The host divides a latent by this factor before the network sees it.
        x = (latent * (sigma.float() ** 2 + 1).sqrt().view(1, 1, 1, 1)).expand(len(pattern), -1, -1, -1)
        banks: dict[Key, Tensor] = {}
        own = {
            **self.model.patcher.model_options["transformer_options"],
            "cond_or_uncond": list(pattern),
            "sigmas": sigma,
            _CAPTURE_KEY: banks,
        }
        context = conditions["c_crossattn"][::per_chunk]
        self.model.forward(x, sigma.expand(len(pattern)), {"c_crossattn": context, "transformer_options": own})
        self._check_layers(len(banks))
        return banks

    def _check_layers(self, found: int) -> None:
        if found < self.layers:
            raise PatchIncomplete(
                "AM-Adapter",
                expected=f"{self.layers} self-attention layers of the appearance model",
                found=f"{found} that were seen",
                cure="connect an appearance model without nodes that replace its blocks",
            )

    @staticmethod
    def _check_size(x: Tensor, latent: Tensor) -> None:
        if x.shape[-2:] != latent.shape[-2:]:
            raise LikenessError(
                "AM-Adapter",
                expected=f"a picture of the exemplar's size ({8 * latent.shape[-1]} x {8 * latent.shape[-2]})",
                found=f"{8 * x.shape[-1]} x {8 * x.shape[-2]}",
                cure="give the empty latent the size of the exemplar, and no areas to the conditioning",
            )


def capturing(model: Any) -> Any:
    """A clone of a MODEL whose self-attention inputs can be captured."""
    clone = clone_model(model)
    patches = clone.model_options["transformer_options"].setdefault("patches", {})
    others = [patch for patch in patches.get("attn1_patch", []) if not isinstance(patch, CaptureNorm)]
    # Last, so that it sees what the attention sees.
    patches["attn1_patch"] = [*others, CaptureNorm()]
    return clone
