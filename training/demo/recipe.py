"""The recipe of the demo weights: sizes, budgets and seeds of every stage, and how each is run and resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.checkpoint import load_strictly, load_tensors, read_header
from ..checkpointing import write_tensors
from ..drawn_faces import Attributes
from ..fact.curriculum import Ramp
from ..fact.errors import BadOptions
from ..fact.models import FactModel, ResamplerShape
from ..fact.options import AdapterOptions
from ..fact.people import People
from ..fact.task import AdapterTask
from ..loop import LoopOptions, OnStep, Task, train
from .autoencoder import Autoencoder, AutoencoderTask
from .base import BaseModel, BaseTask
from .portrait_data import encode_portraits, encode_references, joined, portraits_of
from .recognition import ENCODER_CONFIG, EncoderTask, EncoderWithReader, Judge, JudgeTask

SIZE = 64
AUTOENCODER_WIDTHS = (16, 32, 64, 64)
UNET_WIDTHS = (64, 64, 64, 64)
PARTS, PEOPLE, EACH = 5, 500, 8
ENCODER_ID = "transface_128x4"
RESAMPLER = ResamplerShape(width=128, depth=2, heads=2, queries=16, feed_forward=512)


@dataclass(frozen=True)
class Budget:
    """How long each stage runs.

    Attributes:
        steps: of the stage.
        batch: pictures of a step; pairs count as two.
        rate: first learning rate.
    """

    steps: int
    batch: int
    rate: float


BUDGETS: Mapping[str, Budget] = {
    "autoencoder": Budget(1200, 16, 2e-3),
    "encoder": Budget(1300, 64, 1e-3),
    "judge": Budget(1500, 64, 1.5e-3),
    "decoder": Budget(900, 16, 1e-3),
    "base": Budget(2600, 32, 1e-3),
    "fact_start": Budget(900, 48, 1e-3),
    "fact": Budget(650, 48, 1e-3),
    "fact_short": Budget(330, 48, 1e-3),
    "fact_open": Budget(330, 48, 1e-3),
    "fact_open_unshuffled": Budget(330, 48, 1e-3),
    "fact_with_fair": Budget(150, 48, 1e-3),
    "fact_without_fair": Budget(150, 48, 1e-3),
}
# A stage that is left before its end, because the next goes on from there under other options.
STOPS: Mapping[str, int] = {"fact_start": 400}
# Stages that go on from the weights of another.
STARTS: Mapping[str, str] = {
    "fact": "fact_start",
    "fact_with_fair": "fact_open",
    "fact_without_fair": "fact_open",
}
SEED = 0
LEAST_PEOPLE = 2
ADAPTERS = tuple(stage for stage in BUDGETS if stage.startswith("fact"))


def shared_budget(stage: str, share: float = 1.0) -> Budget:
    """The budget of a stage of which a share of the steps is run."""
    return replace(BUDGETS[stage], steps=max(1, round(BUDGETS[stage].steps * share)))


def adapter_options(stage: str, share: float = 1.0) -> AdapterOptions:
    """Options of a FACT run. The runs that are compared differ in one thing: ``fact_open`` and
    ``fact_open_unshuffled`` in shuffle, ``fact_with_fair`` and ``fact_without_fair`` in FAIR.
    """
    budget = shared_budget(stage, share)
    full = AdapterOptions(
        steps=budget.steps,
        persons=budget.batch // 4,
        pictures=4,
        seed=SEED,
        fair_weight=0.01 if stage == "fact_start" else 0.05,
        mask_growth=0,
        drop=Ramp(0.0, 0.1),
        shuffle=Ramp(0.5, 1.0),
        gate_rate=10.0,
        text_drop=0.1,
    )
    # What goes on from open gates begins where the curriculum ended, and noisy steps come first.
    later = replace(full, drop=Ramp(0.1, 0.1), shuffle=Ramp(1.0, 1.0), noise_bias=1.0)
    if stage == "fact":
        return replace(later, fair_weight=0.002)
    if stage in ("fact_with_fair", "fact_without_fair"):
        # Gates as slow as the rest: else FAIR closes them, instead of teaching the layers where to be silent.
        weight = 0.001 if stage == "fact_with_fair" else 0.0
        return replace(later, fair_weight=weight, fair_mask="share", gate_rate=1.0)
    if stage == "fact_open":
        return replace(full, fair_weight=0.0)
    if stage == "fact_open_unshuffled":
        return replace(full, fair_weight=0.0, shuffle=Ramp(0.0, 0.0))
    return full


class Workshop:
    """Where states and encoded portraits are kept while the weights are made.

    Args:
        folder: for everything.
        on_step: told after every step of the stage that runs.
        share: of the steps of every stage and of the persons, below 1 for a rehearsal: everything runs, little is
            learned.

    Raises:
        BadOptions: a share that is not above 0 and at most 1.
    """

    def __init__(self, folder: Path, on_step: Callable[[str], OnStep] | None = None, share: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise BadOptions("share", expected="above 0 and at most 1", found=f"{share:g}", cure="correct it")
        self.folder = folder
        self.share = share
        self._people = max(LEAST_PEOPLE, round(PEOPLE * share))
        self._on_step = on_step

    def state(self, stage: str) -> Path:
        """The state file of a stage."""
        return self.folder / f"{stage}.state.safetensors"

    def run(self, stage: str, stop_after: int | None = None) -> int:
        """Run or resume one stage; return its finished steps."""
        budget = shared_budget(stage, self.share)
        task = self.task(stage)
        options = LoopOptions(budget.steps, budget.rate, save_every=100)
        told = None if self._on_step is None else self._on_step(stage)
        if stop_after is None and stage in STOPS:
            stop_after = max(1, round(STOPS[stage] * self.share))
        return train(task, options, self.state(stage), stop_after=stop_after, on_step=told)

    def task(self, stage: str) -> Task:
        """What a stage trains."""
        batch = BUDGETS[stage].batch
        if stage == "autoencoder":
            return AutoencoderTask(AUTOENCODER_WIDTHS, SIZE, batch, SEED)
        if stage == "decoder":
            return AutoencoderTask(AUTOENCODER_WIDTHS, SIZE, batch, SEED + 1, self._weights("autoencoder"))
        if stage == "encoder":
            return EncoderTask(batch, SEED)
        if stage == "judge":
            return JudgeTask(batch, SEED)
        if stage == "base":
            return BaseTask(self.portraits(), UNET_WIDTHS, batch, SEED)
        base = self.base()
        options = adapter_options(stage, self.share)
        model = FactModel(base.unet, ENCODER_CONFIG.width, RESAMPLER, SEED)
        if stage in STARTS:
            load_strictly(model.network, self._weights(STARTS[stage]), what=STARTS[stage])
        return AdapterTask(base.unet, model, self.people(base), options)

    def encode_part(self, part: int) -> None:
        """Draw and encode the portraits of one part."""
        tensors = encode_portraits(self.autoencoder(), *portraits_of(self._people, EACH, SEED, part), SIZE)
        write_tensors(self._part("portraits", part), tensors, {})

    def encode_reference_part(self, part: int) -> None:
        """Encode the references of one part."""
        tokens = encode_references(self.encoder(), *portraits_of(self._people, EACH, SEED, part))
        write_tensors(self._part("references", part), {"tokens": tokens}, {})

    def portraits(self) -> dict[str, Tensor]:
        """All encoded portraits."""
        return self._joined("portraits")

    def people(self, base: BaseModel) -> People:
        """The adapter's material."""
        portraits, references = self.portraits(), self._joined("references")
        with torch.no_grad():
            text = base.prompt(Attributes(portraits["attributes"]))
        return People(
            latents=portraits["latents"],
            text=text,
            conditions=references["tokens"],
            masks=portraits["masks"],
            persons=torch.arange(PARTS * self._people).repeat_interleave(EACH),
            encoder=ENCODER_ID,
        )

    def autoencoder(self) -> Autoencoder:
        """The trained autoencoder; its decoder goes on learning while the latents stay the same."""
        stage = "decoder" if self.state("decoder").is_file() else "autoencoder"
        return _ready(Autoencoder(AUTOENCODER_WIDTHS), self._weights(stage))

    def encoder(self) -> Any:
        """The trained face encoder."""
        return _ready(EncoderWithReader(ENCODER_CONFIG), self._weights("encoder")).encoder

    def judge(self) -> Judge:
        """The trained judge."""
        return _ready(Judge(), self._weights("judge"))

    def base(self) -> BaseModel:
        """The trained base model."""
        return _ready(BaseModel(UNET_WIDTHS), self._weights("base"))

    def fact(self, stage: str, base: BaseModel) -> FactModel:
        """A trained adapter, attached to a base model."""
        model = FactModel(base.unet, ENCODER_CONFIG.width, RESAMPLER, SEED)
        _ready(model.network, self._weights(stage))
        return model

    def _weights(self, stage: str) -> dict[str, Tensor]:
        return load_tensors(read_header(self.state(stage)), "network.")

    def _part(self, kind: str, part: int) -> Path:
        return self.folder / f"{kind}_{part}.safetensors"

    def _joined(self, kind: str) -> dict[str, Tensor]:
        return joined([load_tensors(read_header(self._part(kind, part))) for part in range(PARTS)])


def _ready(network: Any, weights: Mapping[str, Tensor]) -> Any:
    """A network with its weights, for use."""
    load_strictly(network, weights, what=type(network).__name__)
    found: nn.Module = network.eval().requires_grad_(False)
    return found
