"""The two kinds of runs that nodes and the command start: a face adapter, and a face encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adapter_base import Base
from .adapter_material import Kind as AdapterKind
from .fact.models import FaceIDModel, FactModel, ResamplerShape
from .fact.options import AdapterOptions
from .fact.people import People as Material
from .fact.task import AdapterModel
from .fact.trainer import AdapterTrainer
from .loop import Task
from .recogniser.networks import Kind as NetworkKind
from .recogniser.networks import save_recogniser, small_recogniser
from .recogniser.people import People
from .recogniser.task import RecipeOptions, RecogniserTask
from .run import NotedTask
from .seeds import generator_for

SHOWN = 4
SHOWN_FACES = 8
PREVIEW_STEPS = 12
DRAWN_SHAPE = ResamplerShape(width=128, depth=2, heads=2, queries=16, feed_forward=512)


class AdapterRun:
    """FACT or IP-Adapter FaceID over a frozen base model.

    Args:
        kind: ``fact`` or ``faceid``.
        base: the frozen models.
        material: what is learned from.
        options: how.
        source: what the material is, for the state and the report.
        shape: sizes of FACT's projector.
        tokens: FaceID's face tokens.
        preview_steps: of the sampler in previews; 0 takes `PREVIEW_STEPS`.
        device: where to train.
        files: tells the photographs from others, for the state; "" for drawn faces.
    """

    def __init__(
        self,
        kind: AdapterKind,
        base: Base,
        material: Material,
        options: AdapterOptions,
        source: str,
        shape: ResamplerShape | None = None,
        tokens: int = 16,
        preview_steps: int = 0,
        device: torch.device | str = "cpu",
        files: str = "",
    ) -> None:
        base.unet.to(device)
        width = int(material.conditions.shape[-1])
        model: AdapterModel
        if kind == "fact":
            model = FactModel(base.unet, width, shape or ResamplerShape(), options.seed)
        else:
            model = FaceIDModel(base.unet, width, tokens, options.seed)
        model.network.to(device)
        self._base, self._material, self._source, self._steps = base, material, source, preview_steps or PREVIEW_STEPS
        self._trainer = AdapterTrainer(base.unet, model, material, options)
        noted = {"kind": kind, "source": source, "encoder": material.encoder, "pictures_given": len(material.latents)}
        noted |= {"files": files} if files else {}
        self.task: Task = NotedTask(self._trainer.task, noted)

    def preview(self) -> Tensor:
        """(N, H, 3 W, 3): the picture whose face is given, the plain model and the adapter, for up to four persons."""
        persons = self._material.persons
        rows = torch.stack([(persons == one).nonzero()[0, 0] for one in persons.unique(sorted=True)[:SHOWN]])
        plain, shown = self._trainer.preview(rows, steps=self._steps)
        with torch.no_grad():
            pictures = [self._base.decode(latents) for latents in (self._material.latents[rows], plain, shown)]
        return torch.cat([one.detach().float().cpu().clone() for one in pictures], dim=2).clamp(0, 1)

    def save(self, path: Path, finished: int) -> None:
        """Write the adapter in its published layout."""
        self._trainer.finished = finished
        self._trainer.save(path)

    def told(self) -> str:
        """What it learns from, in a line."""
        return f"{self._source}; face encoder {self._material.encoder}"

    def close(self) -> None:
        """Take the adapter's layers out of the UNet."""
        self._trainer.close()


class RecogniserRun:
    """A small face encoder by one of the recipes.

    Args:
        network: ``transformer`` or ``resnet``.
        people: labelled faces.
        options: recipe, batch, seed and the recipe's own numbers.
        source: what the faces are, for the state and the report.
        embedding: width of the embedding.
        device: where to train.
        files: as above.

    Raises:
        TrainingFailed: a recipe that does not fit the network, or fewer than two persons.
    """

    def __init__(
        self,
        network: NetworkKind,
        people: People,
        options: RecipeOptions,
        source: str,
        embedding: int = 64,
        device: torch.device | str = "cpu",
        files: str = "",
    ) -> None:
        self.recogniser = small_recogniser(network, people.count, options.seed, embedding=embedding).to(device)
        self._people, self._source, self._options = people, source, options
        noted = {"network": network, "source": source, "embedding": embedding} | ({"files": files} if files else {})
        self.task: Task = NotedTask(RecogniserTask(self.recogniser, people, options), noted)

    def preview(self) -> Tensor:
        """(N, 112, 112, 3): a face of each of the first persons, as the network is given them."""
        labels = torch.arange(min(SHOWN_FACES, self._people.count))
        pictures = self._people.pictures(labels, generator_for("preview", self._options.seed))
        return ((pictures + 1) / 2).clamp(0, 1).movedim(1, -1).contiguous()

    def save(self, path: Path, finished: int) -> None:
        """Write the encoder in its published layout."""
        notes: dict[str, Any] = {
            "likeness.recipe": self._options.recipe,
            "finished_steps": finished,
            "persons": self._people.count,
            "seed": self._options.seed,
            "batch": self._options.batch,
        }
        save_recogniser(self.recogniser, path, {name: str(value) for name, value in notes.items()})

    def told(self) -> str:
        """What it learns from, in a line."""
        return f"{self._source}; recipe {self._options.recipe}"

    def close(self) -> None:
        """Nothing is borrowed."""
