"""HunyuanVideo-Avatar in the host's sampler: windows for long clips, and guidance that changes from step to step.

Windows use the host's own place for them (``context_handler``), so that every other patch sees the frames of a window
as it does with the host's context windows. Frames that two windows share are averaged after guidance's two branches
are computed and before the sampler's step, which is linear in them: the same as the authors' mean after the step.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.hunyuan_avatar.guidance import MASK_SCALE, AvatarGuidance, step_of
from ..adapters.families.hunyuan_avatar.windows import LATENT_TIME, BadWindows, WindowPlan, fused
from .host import stop_if_cancelled
from .hunyuan_avatar import require_hunyuan_video
from .patching import clone_model
from .shared import Shared

HANDLER = "context_handler"
# Options of a model call that the host fills: the frames of a window, and all noise levels of the run.
WINDOW, SIGMAS = "context_window", "sample_sigmas"

Conds = Sequence[Any]
CalcCondBatch = Callable[..., list[Tensor]]


@dataclass(frozen=True, eq=False)
class AvatarWindows(Shared):
    """What the host calls instead of the model where a clip is longer than a window.

    Attributes:
        plan: the windows of each step.
        dim: the axis of time; the host reads it, to reckon with the memory of one window.
    """

    plan: WindowPlan
    dim: int = LATENT_TIME

    @property
    def context_length(self) -> int:
        """Latent frames of a window, under the host's name."""
        return self.plan.window

    def should_use_context(
        self, model: Any, conds: Conds, x_in: Tensor, timestep: Tensor, model_options: Mapping[str, Any]
    ) -> bool:
        """Whether the clip is longer than a window."""
        return x_in.ndim > self.dim and x_in.shape[self.dim] > self.plan.window

    def execute(
        self,
        calc_cond_batch: CalcCondBatch,
        model: Any,
        conds: Conds,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """Run every window and put the results together, one (B, C, T, H, W) for each of ``conds``."""
        options = model_options.get("transformer_options", {})
        total = x_in.shape[self.dim]
        windows = self.plan.windows(total, _step(timestep, options))
        found: list[list[Tensor]] = []
        for window in windows:
            stop_if_cancelled()
            place = _host_windows().IndexListContextWindow(list(window), dim=self.dim)
            # Newer hosts tell the clip's length here; older ones have no such attribute.
            place.total_frames = total
            inner = {**options, WINDOW: place}
            parts = [self._conds_of(cond, x_in, place) for cond in conds]
            x = x_in[:, :, list(window)]
            found.append(calc_cond_batch(model, parts, x, timestep, {**model_options, "transformer_options": inner}))
        return [fused(outputs, windows, total, self.dim) for outputs in zip(*found, strict=True)]

    def _conds_of(self, cond: Any, x_in: Tensor, place: Any) -> Any:
        """The host's own rule for what of a condition belongs to a window."""
        handler = _host_windows().IndexListContextHandler(None, None, context_length=self.plan.window, dim=self.dim)
        return handler.get_resized_cond(cond, x_in, place, x_in.device)


def apply_windows(model: Any, plan: WindowPlan) -> Any:
    """Return a clone of MODEL that denoises long clips window by window; the MODEL that came in stays as it was.

    Raises:
        HostTooOld: this ComfyUI has no HunyuanVideo or no context windows.
        BaseModelMismatch: the model is no HunyuanVideo.
        BadWindows: another node's windows are on the model.
    """
    require_hunyuan(model, "windows of an avatar")
    found = model.model_options.get(HANDLER)
    if found is not None and not isinstance(found, AvatarWindows):
        raise BadWindows(
            "windows of an avatar",
            expected="a model without context windows",
            found=f"those of another node ({type(found).__name__})",
            cure="remove one of the two nodes",
        )
    clone = clone_model(model)
    clone.model_options[HANDLER] = AvatarWindows(plan)
    if found is None:
        _host_windows().create_prepare_sampling_wrapper(clone)
    return clone


def avatar_guider(model: Any, positive: Any, negative: Any, schedule: AvatarGuidance) -> Any:
    """The value of a GUIDER socket that follows ``schedule``.

    From the schedule's switch on the negative branch gets the positive text; that it hears silence is what a patched
    model does with every negative row.

    Raises:
        HostTooOld: this ComfyUI has no HunyuanVideo.
        BaseModelMismatch: the model is no HunyuanVideo.
    """
    require_hunyuan(model, "guidance of an avatar")
    guider = _guider_class()(model)
    guider.schedule = schedule
    guider.inner_set_conds({"positive": positive, "negative": negative})
    return guider


@functools.cache
def _guider_class() -> Any:
    samplers = importlib.import_module("comfy.samplers")

    class AvatarGuider(samplers.CFGGuider):  # type: ignore[name-defined]
        """Two branches whose weights and second text depend on the step."""

        schedule: AvatarGuidance

        def predict_noise(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Any:
            """The guided result of one model call of the sampler."""
            given = model_options or {}
            options = given.get("transformer_options", {})
            step, steps = _step(timestep, options), len(options[SIGMAS]) - 1
            told = {**given, "transformer_options": {**options, MASK_SCALE: self.schedule.mask_scale(step)}}
            positive, negative = (self.conds.get(name) for name in ("positive", "negative"))
            below = positive if self.schedule.audio_only(step) else negative
            strength = self.schedule.strength(step, steps)
            return samplers.sampling_function(
                self.inner_model, x, timestep, below, positive, strength, model_options=told, seed=seed
            )

    return AvatarGuider


def _step(timestep: Tensor, options: Mapping[str, Any]) -> int:
    """Number of the step at hand; the levels are read from the device once for each model call."""
    levels = options.get(SIGMAS)
    if levels is None:
        return 0
    row = torch.cat((timestep.flatten()[:1].to(levels), levels.flatten())).tolist()
    return step_of(row[0], row[1:])


def require_hunyuan(model: Any, what: str) -> None:
    """Refuse a MODEL that is no HunyuanVideo.

    Raises:
        HostTooOld: this ComfyUI has none.
        BaseModelMismatch: the model is another one.
    """
    known = require_hunyuan_video(what).HunyuanVideo
    network = model.model.diffusion_model
    if not isinstance(network, known):
        raise BaseModelMismatch(
            what,
            expected="a HunyuanVideo model",
            found=f"the model {type(model.model).__name__} ({type(network).__name__})",
            cure="connect the HunyuanVideo-Avatar model",
        )


def _host_windows() -> Any:
    return importlib.import_module("comfy.context_windows")
