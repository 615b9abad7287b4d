"""A training run of any task: steps, cosine rate, states to stop and go on from. It needs no host.

Every random number of a step depends on the run's seed and the step alone (`seeds`), so that a run that was stopped
and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..faces.errors import LikenessError
from .checkpointing import load_state, save_state

logger = logging.getLogger(__name__)

Losses = Mapping[str, float]
OnStep = Callable[[int, Losses], None]
TOTAL = "total"


class TrainingFailed(LikenessError):
    """A loss that is not a number, or a run that cannot begin."""


class Task(Protocol):
    """What is trained, and on which loss."""

    @property
    def network(self) -> nn.Module:
        """The module whose state is saved."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What the run was started with; plain values, which a resumed run must share."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for AdamW; ``lr`` in a group is a factor of the run's rate."""

    def losses(self, step: int) -> dict[str, Tensor]:
        """The losses of one step, with ``total`` among them, which is minimised."""

    def after_step(self, step: int) -> None:
        """Whatever follows the optimiser's step."""

    def extra_state(self) -> dict[str, Tensor]:
        """Further tensors that the state file must hold."""

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take these tensors back."""


@dataclass(frozen=True)
class LoopOptions:
    """How long and how fast.

    Attributes:
        steps: of the whole run, on which the cosine depends.
        learning_rate: of AdamW at the first step; it falls to 0.
        weight_decay: of AdamW, for groups that name none.
        clip: largest norm of the gradient; 0 for no limit.
        save_every: steps between two state files.
    """

    steps: int
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    clip: float = 1.0
    save_every: int = 500


def cosine_rate(step: int, steps: int, rate: float) -> float:
    """The learning rate of step ``step`` (from 0): a half cosine from ``rate`` to 0."""
    return rate * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def train(
    task: Task,
    options: LoopOptions,
    state_file: Path | None = None,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
) -> int:
    """Run a task, from its state file if there is one; return how many steps are finished.

    The state is also written when ``on_step`` raises (a user's cancel does), so that nothing is lost.

    Args:
        task: what to train.
        options: how.
        state_file: where the state is kept; None keeps none.
        stop_after: finish no more than this step, as if the user stopped here.
        on_step: called after every step with its number and losses.

    Raises:
        TrainingFailed: a loss that is not a number; the state file keeps an earlier step.
        BadCheckpoint: a state file of other options.
    """
    trained = [one for group in task.parameter_groups() for one in group["params"]]
    optimizer = torch.optim.AdamW(_groups(task, options), lr=options.learning_rate, weight_decay=options.weight_decay)
    noted = {"steps": options.steps, "learning_rate": options.learning_rate, **task.options}
    first = saved = 0
    if state_file is not None and state_file.is_file():
        first, extra = load_state(state_file, task.network, optimizer, noted)
        task.load_extra(extra)
        saved = first
        logger.info("training goes on after step %d of %d", first, options.steps)
    done, failed = first, False
    try:
        for step in range(first, min(options.steps, options.steps if stop_after is None else stop_after)):
            losses = _step(task, optimizer, trained, step, options)
            done = step + 1
            if state_file is not None and done % options.save_every == 0:
                save_state(state_file, done, task.network, optimizer, task.extra_state(), noted)
                saved = done
            if on_step is not None:
                on_step(done, losses)
    except TrainingFailed:
        failed = True
        raise
    finally:
        if state_file is not None and done > saved and not failed:
            save_state(state_file, done, task.network, optimizer, task.extra_state(), noted)
    return done


def _groups(task: Task, options: LoopOptions) -> list[dict[str, Any]]:
    # The factor stays in the group, so that the rate of every step can be made of it.
    return [{**group, "factor": group.get("lr", 1.0), "lr": options.learning_rate} for group in task.parameter_groups()]


def _step(task: Task, optimizer: Optimizer, trained: list[Tensor], step: int, options: LoopOptions) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * cosine_rate(step, options.steps, options.learning_rate)
    optimizer.zero_grad(set_to_none=True)
    losses = task.losses(step)
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not math.isfinite(values[TOTAL]):
        told = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise TrainingFailed(
            f"step {step + 1}", expected="a loss that is a number", found=told, cure="lower the learning rate"
        )
    losses[TOTAL].backward()
    if options.clip > 0:
        torch.nn.utils.clip_grad_norm_(trained, options.clip)
    optimizer.step()
    task.after_step(step)
    return values
