"""A run of adapter training as one object, for commands and nodes: go on, look, save."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..loop import LoopOptions, OnStep, train
from ..seeds import generator_for
from .models import save_adapter
from .options import AdapterOptions
from .people import People
from .preview import preview
from .task import AdapterModel, AdapterTask


class AdapterTrainer:
    """Training of one adapter; see `models.FactModel` and `models.FaceIDModel`.

    Args:
        unet: the diffusers UNet the model is attached to; it is frozen.
        model: the adapter.
        people: the material.
        options: how.
        learning_rate: at the first step; it falls to 0 along a cosine. The official trainer takes 5e-5.
        state_file: where the run is kept, to stop and go on; None keeps nothing.
        save_every: steps between two state files.
    """

    def __init__(
        self,
        unet: nn.Module,
        model: AdapterModel,
        people: People,
        options: AdapterOptions,
        learning_rate: float = 5e-5,
        state_file: Path | None = None,
        save_every: int = 500,
    ) -> None:
        self.task = AdapterTask(unet, model, people, options)
        self.finished = 0
        self._unet, self._model, self._people, self._options = unet, model, people, options
        self._loop = LoopOptions(options.steps, learning_rate, save_every=save_every)
        self._state_file = state_file

    def run(self, stop_after: int | None = None, on_step: OnStep | None = None) -> int:
        """Go on to the end, or to step ``stop_after``; return the finished steps.

        ``on_step`` is told number and losses of every step (``total``, ``noise``, and ``fair`` for FACT); what it
        raises stops the run after the state is written.

        Raises:
            TrainingFailed: a loss that is not a number.
            BadCheckpoint: a state file of other options.
        """
        self.finished = train(self.task, self._loop, self._state_file, stop_after=stop_after, on_step=on_step)
        return self.finished

    def preview(self, rows: Tensor, seed: int = 0, steps: int = 20, guidance: float = 2.0) -> tuple[Tensor, Tensor]:
        """Latents (N, 4, h, w) of the plain model and of the adapter for some rows of the material."""
        here = next(self._unet.parameters()).device
        text = self._people.prompts(rows).to(here)
        noise = torch.randn(self._people.latents[rows].shape, generator=generator_for("preview", seed)).to(here)
        plain = preview(self._unet, None, text, None, noise, steps=steps, guidance=guidance)
        conditions = self._people.conditions[rows].to(here)
        shown = preview(self._unet, self._model, text, conditions, noise, steps=steps, guidance=guidance)
        return plain.cpu(), shown.cpu()

    def save(self, path: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the adapter as it is now, in its published layout."""
        save_adapter(path, self._model, self._people, self._options, self.finished, dtype)

    def close(self) -> None:
        """Take the adapter's layers out of the UNet."""
        self._model.attached.close()
