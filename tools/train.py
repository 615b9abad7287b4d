"""Train a face adapter or a face encoder as a file says: ``python tools/train.py CONFIG``.

CONFIG is JSON, or TOML on Python 3.11 and later; relative paths start at its folder. The run's folder gets the trained
file, the state, the losses and their plot, previews as PNG, and logs for TensorBoard. Ctrl-C stops; the same command
goes on where it stopped. Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.command_line import add_threads, exit_code, loss_line, set_threads  # noqa: E402
from likeness_pack.training.loop import Losses  # noqa: E402
from likeness_pack.training.packages import tensorboard  # noqa: E402
from likeness_pack.training.plot import tensor_picture  # noqa: E402
from likeness_pack.training.run import LossHistory, Trained, run  # noqa: E402
from likeness_pack.training.run_config import RunConfig, built, read_config  # noqa: E402


class Watcher:
    """Lines, pictures and logs of a run.

    Args:
        config: of the run.
        history: its losses.
    """

    def __init__(self, config: RunConfig, history: LossHistory) -> None:
        self._config, self._history = config, history
        first = max(history.rows, default=0) + 1
        # Events beyond the state, of steps that are done once more, are dropped by TensorBoard itself.
        self._logs: Any = None
        if config.common.tensorboard:
            self._logs = tensorboard().SummaryWriter(str(config.output / "logs"), purge_step=first)

    def step(self, step: int, losses: Losses) -> None:
        """A line now and then; every loss to the logs."""
        if self._logs is not None:
            for name, value in losses.items():
                self._logs.add_scalar(f"loss/{name}", value, step)
        if step % self._config.common.tell_every == 0 or step == self._config.common.steps:
            print(loss_line(step, losses), flush=True)

    def preview(self, step: int, pictures: torch.Tensor) -> None:
        """A sheet as PNG, one picture below the other, and the same to the logs."""
        sheet = torch.cat(list(pictures), dim=0)
        folder = self._config.output / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        tensor_picture(sheet).save(folder / f"{step:07d}.png")
        self.plot()
        if self._logs is not None:
            self._logs.add_image("preview", sheet, step, dataformats="HWC")

    def plot(self) -> None:
        """The losses so far."""
        self._config.output.mkdir(parents=True, exist_ok=True)
        self._history.plot(self._config.common.name).save(self._config.output / "losses.png")

    def close(self) -> None:
        """Write what is left."""
        self.plot()
        if self._logs is not None:
            self._logs.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="JSON or TOML; docs/training_config.md lists the names")
    add_threads(parser)
    chosen = parser.parse_args(arguments)
    set_threads(chosen.threads)
    return exit_code(lambda: train(read_config(chosen.config)))


def train(config: RunConfig) -> int:
    """Train to the end and write the file; a finished run writes nothing again."""
    if config.file.is_file() and not config.state.is_file():
        raise LikenessError(
            config.file.name,
            expected="a new name",
            found="a file of that name that no state belongs to",
            cure="choose another name or output folder",
        )
    if config.common.tensorboard:
        tensorboard()
    trained = built(config)
    print(trained.told(), flush=True)
    try:
        finished = _run(config, trained)
        if not config.file.is_file():
            trained.save(config.file, finished)
    finally:
        trained.close()
    print(f"{config.file}: {finished} steps")
    return 0


def _run(config: RunConfig, trained: Trained) -> int:
    history = LossHistory.beside(config.state)
    watcher = Watcher(config, history)
    try:
        return run(
            trained,
            config.loop,
            config.state,
            history,
            preview_every=config.common.preview_every,
            on_step=watcher.step,
            on_preview=watcher.preview,
        )
    finally:
        watcher.close()


if __name__ == "__main__":
    sys.exit(main())
