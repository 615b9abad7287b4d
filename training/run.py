"""A training run as nodes and the command carry it out: losses that outlive a stop, pictures now and then, one file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from .loop import LoopOptions, Losses, Task, train
from .plot import line_plot

PLOTTED = 400

OnPreview = Callable[[int, Tensor], None]
OnStep = Callable[[int, Losses], None]


class Trained(Protocol):
    """What a run trains, looks at and saves."""

    @property
    def task(self) -> Task:
        """For the loop."""

    def preview(self) -> Tensor:
        """Pictures (N, H, W, 3), 0..1, of what it can do now."""

    def save(self, path: Path, finished: int) -> None:
        """Write the file that the ordinary loader reads."""

    def told(self) -> str:
        """What it learns from, in a line."""

    def close(self) -> None:
        """Leave the networks it borrowed as they were."""


class NotedTask:
    """A task whose state also notes what it learns from, so that another source does not go on from it.

    Args:
        task: the task.
        notes: plain values.
    """

    def __init__(self, task: Task, notes: Mapping[str, Any]) -> None:
        self._task, self._notes = task, dict(notes)

    @property
    def network(self) -> nn.Module:
        """The task's."""
        return self._task.network

    @property
    def options(self) -> Mapping[str, Any]:
        """The task's, and the notes."""
        return {**self._task.options, **self._notes}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The task's."""
        return self._task.parameter_groups()

    def losses(self, step: int) -> dict[str, Tensor]:
        """The task's."""
        return self._task.losses(step)

    def after_step(self, step: int) -> None:
        """The task's."""
        self._task.after_step(step)

    def extra_state(self) -> dict[str, Tensor]:
        """The task's."""
        return self._task.extra_state()

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """The task's."""
        self._task.load_extra(tensors)


@dataclass
class LossHistory:
    """Losses of every step, kept beside the state.

    Attributes:
        path: where they are kept; None keeps none.
        rows: losses by step, from 1.
    """

    path: Path | None = None
    rows: dict[int, dict[str, float]] = field(default_factory=dict)

    @staticmethod
    def beside(state_file: Path | None) -> LossHistory:
        """Those of an earlier part of the run, if there are any; a damaged file counts as none."""
        history = LossHistory(None if state_file is None else state_file.with_suffix(".losses.json"))
        if history.path is not None and state_file is not None and state_file.is_file() and history.path.is_file():
            try:
                rows = json.loads(history.path.read_text(encoding="utf-8"))
                history.rows = {int(step): dict(losses) for step, losses in rows.items()}
            except (OSError, ValueError, AttributeError):
                history.rows = {}
        return history

    def add(self, step: int, losses: Losses) -> None:
        """Note a step; whatever was noted of it and of later ones before the run went back is dropped."""
        if step in self.rows:
            self.rows = {number: row for number, row in self.rows.items() if number < step}
        self.rows[step] = {name: float(value) for name, value in losses.items()}

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(self.rows), encoding="utf-8")
        part.replace(self.path)

    def plot(self, title: str, size: tuple[int, int] = (640, 400)) -> Any:
        """A Pillow image of all losses over the steps; long runs as means over neighbouring steps."""
        names = dict.fromkeys(name for row in self.rows.values() for name in row)
        return line_plot({name: self._line(name) for name in names}, title, size)

    def _line(self, name: str) -> list[tuple[float, float]]:
        points = [(float(step), row[name]) for step, row in sorted(self.rows.items()) if name in row]
        width = max(1, len(points) // PLOTTED)
        groups = [points[first : first + width] for first in range(0, len(points), width)]
        return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def run(
    trained: Trained,
    loop: LoopOptions,
    state_file: Path | None,
    history: LossHistory,
    *,
    preview_every: int = 0,
    on_step: OnStep | None = None,
    on_preview: OnPreview | None = None,
    stop_after: int | None = None,
) -> int:
    """Train, or go on, and return the finished steps.

    Args:
        trained: what.
        loop: how long and how fast.
        state_file: where the state is kept.
        history: filled with the losses and kept, even where something raises.
        preview_every: steps between two previews; 0 makes none.
        on_step: after every step; what it raises stops the run after the state is written.
        on_preview: after a preview, with the step and its pictures (N, H, W, 3).
        stop_after: finish no more than this step.

    Raises:
        TrainingFailed: a loss that is not a number; the state keeps an earlier step.
        BadCheckpoint: a state of other options.
    """

    def told(step: int, losses: Losses) -> None:
        history.add(step, losses)
        if step % loop.save_every == 0:
            history.save()
        if on_step is not None:
            on_step(step, losses)
        if on_preview is not None and preview_every and step % preview_every == 0:
            on_preview(step, trained.preview())

    try:
        return train(trained.task, loop, state_file, stop_after=stop_after, on_step=told)
    finally:
        history.save()
