"""Trains DreamID (Ye et al. 2025, arXiv:2504.14509) on triplets.

Loss, with the paper's weights 1, 1 and 10: identity (cosine distance of the generated face and A1, with gradients
through the decoder and a torch face encoder), diffusion (what the UNet should predict at the noisy A2) and
reconstruction (pixels of A2). The timestep is fixed to 999 for a model of one step; for several it is drawn from them.
A fine-tune starts from a finished file, on triplets that are made for it (glasses, face shape: `dreamid_build`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.families.dreamid.adapter import DreamIdAdapter
from ..adapters.families.dreamid.landmark_picture import landmark_pictures
from ..adapters.families.dreamid.layout import DreamIdFacts
from ..adapters.families.lafr.one_step import alpha_bar, clean_latent
from ..faces.errors import LikenessError
from .checkpointing import write_model
from .dreamid_data import TripletRows, Triplets
from .dreamid_losses import Codec, Embed, aim, embedded, identity_loss, noised, picture_loss, renoised
from .dreamid_unet import Conditions, SwapModel
from .loop import TOTAL, LoopOptions, OnStep, train
from .seeds import generator_for

# Prepared triplets (latents, embeddings) that are kept between steps.
_KEPT = 4096
_MEASURED_AT_ONCE = 4


class BadOptions(LikenessError):
    """Training options that fit nothing."""


@dataclass(frozen=True)
class DreamIdOptions:
    """What to train on which loss.

    Attributes:
        seed: of everything random.
        batch: triplets in a step.
        identity, diffusion, reconstruction: weights of the three losses (officially 1, 1, 10).
        checkpoint_gradients: less memory, a third more work.
    """

    seed: int = 0
    batch: int = 8
    identity: float = 1.0
    diffusion: float = 1.0
    reconstruction: float = 10.0
    checkpoint_gradients: bool = False

    def __post_init__(self) -> None:
        weights = (self.identity, self.diffusion, self.reconstruction)
        if self.batch < 1 or min(weights) < 0 or not any(weights):
            raise BadOptions(
                "DreamID training",
                expected="a batch of 1 or more, and weights of 0 or more, not all 0",
                found=f"batch {self.batch}, identity, diffusion and reconstruction {weights}",
                cure="keep the defaults where you are not sure",
            )


@dataclass(frozen=True, eq=False)
class Tools:
    """Frozen networks that the training needs.

    Attributes:
        codec: the base model's VAE.
        embed: the face encoder of the identity loss and of the identity tokens.
        text: (1, T, C) the constant prompt, through the base model's text encoder.
    """

    codec: Codec
    embed: Embed
    text: Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """B triplets as the networks see them.

    Attributes:
        rows: their pictures and landmarks.
        conditions: what SwapNet is told.
        clean: (B, 4, h, w) latents of A2.
    """

    rows: TripletRows
    conditions: Conditions
    clean: Tensor


class SwapTask:
    """The task; see `loop.Task`.

    Args:
        model: what is trained, on its device.
        triplets: to train on.
        tools: frozen networks.
        facts: prediction and timesteps.
        options: batch and weights.
    """

    def __init__(
        self, model: SwapModel, triplets: Triplets, tools: Tools, facts: DreamIdFacts, options: DreamIdOptions
    ) -> None:
        self.network: nn.Module = model
        self.model = model
        self.triplets = triplets
        self.tools = tools
        self.facts = facts
        self.dreamid = options
        told = {"task": "dreamid", "triplets": len(triplets), "prediction": facts.prediction}
        self.options: Mapping[str, Any] = {**told, "timesteps": list(facts.timesteps), **asdict(options)}
        self._kept: dict[int, Prepared] = {}
        if options.checkpoint_gradients:
            model.checkpoint_gradients()
            model.train()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Matrices and kernels decay; norms and biases do not."""
        trained = self.model.trained()
        decaying = [one for one in trained if one.ndim > 1]
        return [{"params": decaying}, {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """Identity, diffusion and reconstruction."""
        options, facts = self.dreamid, self.facts
        generator = generator_for(options.seed, "triplets", step)
        numbers = torch.randint(len(self.triplets), (options.batch,), generator=generator).tolist()
        timestep = facts.timesteps[int(torch.randint(len(facts.timesteps), (), generator=generator))]
        ready = self._prepared(numbers)
        noise = torch.randn(ready.clean.shape, generator=generator).to(ready.clean)
        noisy = noised(ready.clean, noise, timestep)
        predicted = self.model(noisy, _times(noisy, timestep), ready.conditions)
        clean = clean_latent(noisy, predicted, alpha_bar(timestep), facts.prediction)
        pictures = self.tools.codec.decode(clean)
        rows, source = ready.rows, ready.conditions.embedding
        found = {
            "identity": identity_loss(self.tools.embed, pictures, rows.truth5, source),
            "diffusion": nn.functional.mse_loss(predicted, aim(ready.clean, noise, timestep, facts.prediction)),
            "reconstruction": picture_loss(pictures, rows.truth.to(pictures)),
        }
        weights = (options.identity, options.diffusion, options.reconstruction)
        found[TOTAL] = torch.stack([w * one for w, one in zip(weights, found.values(), strict=True)]).sum()
        return found

    def after_step(self, step: int) -> None:
        """Nothing."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def _prepared(self, numbers: Sequence[int]) -> Prepared:
        if len(self.triplets) > _KEPT:
            return prepare(self.triplets, numbers, self.tools)
        for number in set(numbers) - self._kept.keys():
            self._kept[number] = prepare(self.triplets, [number], self.tools)
        return _joined([self._kept[number] for number in numbers])


def prepare(triplets: Triplets, numbers: Sequence[int], tools: Tools) -> Prepared:
    """Encode some triplets."""
    rows = triplets.rows(numbers)
    device = tools.text.device
    with torch.no_grad():
        clean, target, source = (
            tools.codec.encode(pictures.to(device)).detach().float().clone()
            for pictures in (rows.truth, rows.target, rows.source)
        )
        embedding = embedded(tools.embed, rows.source.to(device), rows.source5)
    height, width = (8 * int(side) for side in clean.shape[-2:])
    marks = landmark_pictures(rows.points, triplets.size, height, width).to(device)
    return Prepared(rows, Conditions(target, source, embedding, marks, tools.text), clean)


@torch.no_grad()
def swap(model: SwapModel, conditions: Conditions, codec: Codec, facts: DreamIdFacts, seed: int = 0) -> Tensor:
    """Swap as the host does: from pure noise, one call for each timestep; pictures (B, 3, S, S), 0..1."""
    generator = generator_for(seed, "noise")
    noisy = torch.randn(conditions.target.shape, generator=generator).to(conditions.target)
    model.read_source(conditions)
    clean = noisy
    for number, timestep in enumerate(facts.timesteps):
        predicted = model.predict(noisy, _times(noisy, timestep), conditions)
        clean = clean_latent(noisy, predicted, alpha_bar(timestep), facts.prediction)
        if number + 1 < len(facts.timesteps):
            noisy = renoised(clean, noisy, timestep, facts.timesteps[number + 1])
    return codec.decode(clean).clamp(0, 1)


@dataclass(frozen=True)
class HeldOut:
    """Means over triplets, by the encoder of the loss.

    Attributes:
        before: cosine of the target B~ and the source.
        after: cosine of the swapped picture and the source.
        difference: mean absolute difference of the swapped picture and A2, 0..1.
    """

    before: float
    after: float
    difference: float


def held_out(
    model: SwapModel, triplets: Triplets, tools: Tools, facts: DreamIdFacts, limit: int | None = None
) -> HeldOut:
    """Measure a model on the first ``limit`` triplets (all by default)."""
    used = len(triplets) if limit is None else min(limit, len(triplets))
    sums = torch.zeros(3, dtype=torch.float64)
    for first in range(0, used, _MEASURED_AT_ONCE):
        ready = prepare(triplets, range(first, min(first + _MEASURED_AT_ONCE, used)), tools)
        rows, source = ready.rows, ready.conditions.embedding
        swapped = swap(model, ready.conditions, tools.codec, facts, seed=first)
        with torch.no_grad():
            cosines = [
                (embedded(tools.embed, pictures.to(source.device), rows.truth5) * source).sum()
                for pictures in (rows.target, swapped)
            ]
        difference = (swapped.cpu() - rows.truth).abs().mean(dim=(1, 2, 3)).sum()
        sums += torch.stack([*(one.cpu() for one in cosines), difference]).double()
    before, after, difference = (sums / used).tolist()
    return HeldOut(before, after, difference)


# Widths of the text that the two generations of the base model read.
CONTEXT_BASES = {768: "SD1.x", 1024: "SD2.x"}


def save_model(path: Path, model: SwapModel, facts: DreamIdFacts, dtype: torch.dtype = torch.float16) -> None:
    """Write the file that the loader of adapters reads, with complete metadata. Raises OSError."""
    base = CONTEXT_BASES.get(model.sizes.context, facts.base)
    write_model(path, model.file_tensors(dtype), facts.metadata(model.sizes.tokens), "face-swap", base)


def model_of(adapter: DreamIdAdapter) -> SwapModel:
    """A model with the weights of a finished file, to train on; what the file leaves out comes back as zeros."""
    model = SwapModel(adapter.sizes, adapter.facts.head_channels)
    model.load_file_tensors(adapter.swapnet_tensors(), adapter.facenet_tensors(), adapter.network.state_dict())
    return model


def state_path(path: Path) -> Path:
    """Where the training state of a file lies; its suffix keeps it out of the model lists."""
    return path.with_suffix(".training_state")


def train_dreamid(
    model: SwapModel,
    triplets: Triplets,
    tools: Tools,
    path: Path,
    facts: DreamIdFacts,
    options: DreamIdOptions | None = None,
    loop: LoopOptions | None = None,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
    dtype: torch.dtype = torch.float16,
) -> SwapModel:
    """Train a model and write it to ``path``; go on from the state beside it if there is one.

    Args:
        model: `dreamid_unet.started` of a base UNet, or `model_of` a finished file.
        triplets: to train on.
        tools: frozen networks, on the model's device.
        path: the file, ``.safetensors``.
        facts: encoder, prompt, base, prediction, timesteps; steps, triplets, points and size are filled in.
        options, loop: what and how long; the paper made 70000 steps of 8 at a rate of 1e-5.
        stop_after, on_step: see `loop.train`.
        dtype: of the file.

    Raises:
        TrainingFailed, BadCheckpoint: see `loop.train`.
        OSError: the file cannot be written.
    """
    task = SwapTask(model, triplets, tools, facts, options or DreamIdOptions())
    loop = loop or LoopOptions(steps=70_000, learning_rate=1e-5)
    done = train(task, loop, state_path(path), stop_after=stop_after, on_step=on_step)
    told = replace(
        facts,
        steps=done,
        triplets=len(triplets),
        points=triplets.points,
        size=triplets.size,
        head_channels=model.head_channels,
    )
    save_model(path, model, told, dtype)
    return model


def _times(latents: Tensor, timestep: int) -> Tensor:
    return torch.full((len(latents),), timestep, dtype=torch.long, device=latents.device)


def _joined(parts: Sequence[Prepared]) -> Prepared:
    names = TripletRows.__dataclass_fields__
    rows = TripletRows(*(torch.cat([getattr(part.rows, name) for part in parts]) for name in names))
    told = Conditions(
        torch.cat([part.conditions.target for part in parts]),
        torch.cat([part.conditions.source for part in parts]),
        torch.cat([part.conditions.embedding for part in parts]),
        torch.cat([part.conditions.landmarks for part in parts]),
        parts[0].conditions.text,
    )
    return Prepared(rows, told, torch.cat([part.clean for part in parts]))
