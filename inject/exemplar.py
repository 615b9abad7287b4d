"""The exemplar's way through the noise levels: DDIM inversion, then the authors' steps, in the host's sampling.

The same steps serve the picture itself as a SAMPLER with SIGMAS: the host's ``ddim`` goes from one level of the list to
the next, the authors' scheduler a little less far (`ddim`), and the difference shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.am_adapter.ddim import Move, ddim_step, moves
from ..faces.errors import LikenessError
from . import host
from .controlnext import apply_controlnext
from .exemplar_pass import Trajectory
from .managed import ManagedNetwork
from .shared import Shared

SIGMAS_KEY = "likeness_sigmas"


@dataclass(frozen=True)
class Control:
    """A managed `ControlNeXt`, its picture (1, 3, H, W) and its strength."""

    network: ManagedNetwork
    picture: Tensor
    strength: float = 1.0


@dataclass(frozen=True)
class Level:
    """One step of a run: the noise level told to the host, and shares of signal before and after."""

    sigma: float
    alpha: float
    alpha_next: float


def levels(model: Any, steps: int) -> list[Level]:
    """The authors' steps for a MODEL, noisiest first.

    Raises:
        LikenessError: fewer than two steps.
    """
    if steps < 2:
        raise LikenessError(
            "AM-Adapter", expected="2 steps or more", found=f"{steps}", cure="raise the number of steps"
        )
    sigmas = model.get_model_object("model_sampling").sigmas.detach().cpu()
    alphas = 1 / (sigmas.double() ** 2 + 1)
    return [_level(float(sigmas[move.time]), move) for move in moves(steps, alphas)]


def _level(sigma: float, move: Move) -> Level:
    return Level(sigma, move.alpha, move.alpha_next)


def official_schedule(model: Any, steps: int) -> tuple[Any, Tensor]:
    """The authors' DDIM as the host's SAMPLER and SIGMAS (steps + 1,)."""
    run = levels(model, steps)
    return _sampler(OfficialSteps(tuple(run))), torch.tensor([*(level.sigma for level in run), 0.0])


@dataclass(frozen=True, eq=False)
class OfficialSteps(Shared):
    """A sampler function of the host: the authors' deterministic steps.

    Attributes:
        run: the steps it knows; the host may ask for a part of them.
        start: latents to begin with instead of the host's, or None.
        visited: called with each latent before its step.
    """

    run: tuple[Level, ...]
    start: Tensor | None = None
    visited: Callable[[Tensor], None] | None = None

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[..., None] | None = None,
        disable: bool | None = None,
        **kwargs: Any,
    ) -> Tensor:
        asked = [float(sigma) for sigma in sigmas]
        run = [self._known(sigma) for sigma in asked[:-1]]
        latent = x / (asked[0] ** 2 + 1) ** 0.5 if self.start is None else self.start.to(x)
        for number, level in enumerate(run):
            if self.visited is not None:
                self.visited(latent)
            noise = _noise(model, latent, number, level.sigma, extra_args, callback)
            latent = ddim_step(latent, noise, level.alpha, level.alpha_next)
        return latent if asked[-1] == 0 else latent * (asked[-1] ** 2 + 1) ** 0.5

    def _known(self, sigma: float) -> Level:
        nearest = min(self.run, key=lambda level: abs(level.sigma - sigma))
        if abs(nearest.sigma - sigma) > 1e-4 * nearest.sigma:
            raise LikenessError(
                "AM-Adapter sampler",
                expected="the SIGMAS of the node this SAMPLER came from",
                found=f"a noise level of {sigma:.4g}",
                cure="connect both outputs of 'AM-Adapter Sampler'",
            )
        return nearest


@dataclass(frozen=True, eq=False)
class Inversion(Shared):
    """A sampler function that leads a clean latent up the steps; the network is told the time that is reached.

    Attributes:
        run: the steps, noisiest first.
        reached: called with the noisiest latent.
    """

    run: tuple[Level, ...]
    reached: Callable[[Tensor], None]

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[..., None] | None = None,
        disable: bool | None = None,
        **kwargs: Any,
    ) -> Tensor:
        latent = x
        for number, level in enumerate(reversed(self.run)):
            noise = _noise(model, latent, number, level.sigma, extra_args, callback)
            latent = ddim_step(latent, noise, level.alpha_next, level.alpha)
        self.reached(latent)
        return latent


def _noise(
    model: Any,
    latent: Tensor,
    number: int,
    sigma: float,
    extra_args: dict[str, Any] | None,
    callback: Callable[..., None] | None,
) -> Tensor:
    """The noise that the model sees in a latent; the host is told of the step."""
    clean, noise = predict(model, latent, sigma, extra_args or {})
    if callback is not None:
        callback({"x": latent, "i": number, "sigma": sigma, "sigma_hat": sigma, "denoised": clean})
    return noise


def predict(model: Any, latent: Tensor, sigma: float, extra_args: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that the host's guided model sees in a latent of the network's own scale."""
    x = latent * (sigma**2 + 1) ** 0.5
    clean = model(x, x.new_full((len(x),), sigma), **extra_args)
    return clean, (x - clean) / sigma


def exemplar_trajectory(
    model: Any,
    latent: Tensor,
    positive: Any,
    negative: Any,
    *,
    steps: int = 20,
    cfg: float = 7.5,
    control: Control | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Invert an exemplar and lead it down again.

    Args:
        model: the appearance MODEL.
        latent: (1, 4, H, W) of the exemplar, as the host's VAE encodes it.
        positive, negative: conditioning of the steps down; the inversion sees the negative one alone (officially the
            empty prompt), without ControlNeXt.
        steps, cfg: officially 20 and 7.5.
        control: ControlNeXt with the exemplar's map, for the steps down.
        progress: called with (steps done, all steps).

    Returns:
        a LATENT with the latent (steps, 4, H, W) at each noise level, noisiest first, and the levels beside it.

    Raises:
        LikenessError: several exemplars, or one that is not square.
    """
    check_exemplar(latent)
    run = tuple(levels(model, steps))
    ends: list[Tensor] = []
    rising = torch.tensor([level.sigma for level in reversed(run)] + [run[0].sigma])
    done = _Progress(progress, 2 * steps)
    _sample(model, latent, _sampler(Inversion(run, ends.append)), rising, negative, negative, 1.0, done)
    if control is not None:
        model = apply_controlnext(model, control.network, control.picture, control.strength)
    visited: list[Tensor] = []
    down = OfficialSteps(run, ends[0], visited.append)
    falling = torch.tensor([*(level.sigma for level in run), 0.0])
    _sample(model, torch.zeros_like(latent), _sampler(down), falling, positive, negative, cfg, done)
    latents = model.model.process_latent_out(torch.cat(visited).float().cpu())
    return {"samples": latents, SIGMAS_KEY: tuple(level.sigma for level in run)}


def read_trajectory(model: Any, latent: dict[str, Any]) -> Trajectory:
    """The trajectory in a LATENT made by `exemplar_trajectory`.

    Raises:
        LikenessError: another LATENT.
    """
    sigmas, samples = latent.get(SIGMAS_KEY), latent["samples"]
    if sigmas is None or len(sigmas) != len(samples):
        raise LikenessError(
            "AM-Adapter",
            expected="the latents of an inverted exemplar, one for each noise level",
            found=f"a latent of shape {tuple(samples.shape)}",
            cure="connect the output of 'Invert Exemplar' unchanged",
        )
    latents = model.model.process_latent_in(samples.float())
    return Trajectory(torch.tensor(sigmas[::-1]), latents.flip(0).contiguous())


def check_exemplar(latent: Tensor) -> None:
    """One square latent (1, 4, H, H).

    Raises:
        LikenessError: any other shape.
    """
    if latent.dim() != 4 or latent.shape[0] != 1 or latent.shape[2] != latent.shape[3]:
        raise LikenessError(
            "AM-Adapter exemplar",
            expected="one square picture, officially 512 x 512",
            found=f"a latent of shape {tuple(latent.shape)}",
            cure="choose one exemplar with 'Retrieve Exemplar' and scale it to a square before encoding",
        )


class _Progress:
    """Counts steps over several runs."""

    def __init__(self, report: Callable[[int, int], None] | None, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, *args: Any) -> None:
        host.stop_if_cancelled()
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total)


def _sampler(function: Callable[..., Tensor]) -> Any:
    return importlib.import_module("comfy.samplers").KSAMPLER(function)


def _sample(
    model: Any,
    latent: Tensor,
    sampler: Any,
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    callback: Callable[..., None],
) -> Sequence[Tensor]:
    """One run of the host's sampling without noise of its own."""
    sample = importlib.import_module("comfy.sample").sample_custom
    noise = torch.zeros_like(latent)
    return sample(model, noise, cfg, sampler, sigmas, positive, negative, latent, callback=callback, disable_pbar=True)
