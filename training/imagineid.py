"""Training of voice factors after FaceChain-ImagineID (arXiv 2403.01901): our construction, see the modules' own notes.

Three stages, as the paper has them: identity, content, emotion. Each trains one module while the earlier ones are
frozen. What the paper compares with videos is not public; here each factor learns to tell the labels of its own kind
apart (who speaks, what is said, how), by cosine to one direction for each label, with a margin-free softmax. A clip's
vector for content and for emotion is the mean over its frames.

The paper parts the factors by its staging alone. Our labels allow for more, and `FactorOptions.purity` weighs it: among
clips of one own label, the mean vectors of another label's clips shall not differ. 0 turns it off. How much of the
other labels is left in a factor is measured by `imagineid_probe` and told in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..adapters.families.imagineid.arch import FACTORS, FactorSizes, VoiceFactors, cepstra, sizes_fit
from ..adapters.families.imagineid.layout import FactorFacts
from ..faces.errors import LikenessError
from .checkpointing import write_model
from .imagineid_clips import VoiceClips
from .loop import TOTAL, LoopOptions, Losses, train
from .seeds import generator_for, seed_for

OnStage = Callable[[str, int, Losses], None]
# Sharpness of the softmax over cosines.
_SCALE = 12.0
# Change of loudness and noise that a clip gets anew in every step, in units of the spectrogram (0.5 is 20 dB). Emotion
# keeps its loudness, which is a part of it.
_LOUDNESS = {"identity": 0.25, "content": 0.25, "emotion": 0.03}
_NOISE = 0.03


class BadFactorOptions(LikenessError):
    """Training options that fit nothing."""


@dataclass(frozen=True)
class FactorOptions:
    """What is trained.

    Attributes:
        seed: of everything random.
        batch: clips in a step.
        frames: spectral frames of 10 ms that identity and emotion see of a clip, from a random place; content sees
            all of it.
        purity: weight of the term that keeps other labels out of a factor.
        width, layers, identity, content, emotion: see `FactorSizes`.
    """

    seed: int = 0
    batch: int = 64
    frames: int = 128
    purity: float = 0.25
    width: int = 128
    layers: int = 2
    identity: int = 128
    content: int = 64
    emotion: int = 64

    def __post_init__(self) -> None:
        if not sizes_fit(self.sizes) or self.batch < 2 or self.purity < 0 or self.frames < 16 or self.frames % 4:
            raise BadFactorOptions(
                "training of voice factors",
                expected="a width of a multiple of 64, sizes above 0, a batch of 2 or more, frames of a multiple of 4 "
                "from 16 on, a purity of 0 or more",
                found=f"width {self.width}, layers {self.layers}, batch {self.batch}, frames {self.frames}, "
                f"purity {self.purity}",
                cure="keep the defaults where you are not sure",
            )

    @property
    def sizes(self) -> FactorSizes:
        """Sizes of the network."""
        return FactorSizes(self.width, self.layers, self.identity, self.content, self.emotion)


class Stage(nn.Module):
    """What one stage trains: a module, and a direction for each label, which is not kept afterwards."""

    def __init__(self, module: nn.Module, labels: int, size: int) -> None:
        super().__init__()
        self.module = module
        self.directions = nn.Parameter(torch.empty(labels, size))


class StageTask:
    """One stage; see `loop.Task`.

    Args:
        factor: ``"identity"``, ``"content"`` or ``"emotion"``.
        network: all three modules; those before ``factor`` are read, that of ``factor`` is trained in place.
        clips: labelled.
        options: what to train.
        device: where to train.
    """

    def __init__(
        self, factor: str, network: VoiceFactors, clips: VoiceClips, options: FactorOptions, device: torch.device
    ) -> None:
        self.factor = factor
        self.whole = network
        self.clips = clips
        self.factors = options
        self.device = device
        module = getattr(network, factor)
        size = int(getattr(options, factor))
        self.network = Stage(module, len(clips.classes[factor]), size).to(device)
        with torch.no_grad():
            self.network.directions.normal_(generator=None if device.type != "cpu" else _generator(options, factor))
        self.options: Mapping[str, Any] = {"task": f"imagineid_{factor}", "clips": len(clips), **asdict(options)}
        self._numbers = clips.numbers(factor)
        self._others = [clips.numbers(other) for other in FACTORS if other != factor]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; norms, biases and directions do not."""
        decaying = [one for one in self.network.module.parameters() if one.ndim > 1]
        others = [one for one in self.network.module.parameters() if one.ndim <= 1]
        return [{"params": decaying}, {"params": [*others, self.network.directions], "weight_decay": 0.0}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """The softmax over the labels, each label drawn as often as the others."""
        generator = generator_for(self.factors.seed, self.factor, step)
        rows = self._drawn(generator)
        mel = self._spectrograms(rows, generator).to(self.device)
        vectors = functional.normalize(self._vectors(mel), dim=1)
        scores = _SCALE * vectors @ functional.normalize(self.network.directions, dim=1).T
        wanted = self._numbers[rows].to(self.device)
        found = {"labels": functional.cross_entropy(scores, wanted)}
        found["others"] = torch.stack(
            [left_over(vectors, wanted, one[rows].to(self.device)) for one in self._others]
        ).sum()
        found["right"] = (scores.argmax(dim=1) == wanted).float().mean()
        return {TOTAL: found["labels"] + self.factors.purity * found["others"], **found}

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing more is kept."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""

    def _drawn(self, generator: torch.Generator) -> list[int]:
        classes = torch.randint(len(self.clips.classes[self.factor]), (self.factors.batch,), generator=generator)
        places = torch.rand(self.factors.batch, generator=generator)
        rows = []
        for wanted, place in zip(classes.tolist(), places.tolist(), strict=True):
            fitting = (self._numbers == wanted).nonzero()[:, 0]
            rows.append(int(fitting[int(place * len(fitting))]))
        return rows

    def _spectrograms(self, rows: list[int], generator: torch.Generator) -> Tensor:
        mel = self.clips.padded(rows, self.clips.longest)
        if self.factor != "content":
            mel = torch.stack([self._cut(mel[place], row, generator) for place, row in enumerate(rows)])
        louder = (torch.rand(len(rows), 1, 1, generator=generator) * 2 - 1) * _LOUDNESS[self.factor]
        return mel + louder + _NOISE * torch.randn(mel.shape, generator=generator)

    def _cut(self, mel: Tensor, row: int, generator: torch.Generator) -> Tensor:
        """A piece of ``frames`` frames from a random place within the clip."""
        frames = self.factors.frames
        room = self.clips.mels[row].shape[1] - frames
        first = int(torch.randint(max(0, room) + 1, (1,), generator=generator))
        piece = mel[:, first : first + frames]
        return functional.pad(piece, (0, frames - piece.shape[1]), value=float(piece.min()))

    def _vectors(self, mel: Tensor) -> Tensor:
        """One vector (B, D) for each clip; gradients flow into this stage's module alone."""
        whole = self.whole
        if self.factor == "identity":
            found: Tensor = whole.identity(cepstra(mel))
            return found
        with torch.no_grad():
            identity = whole.identity(cepstra(mel))[:, None]
            content = None if self.factor == "content" else whole.content(mel, identity)
        rows = whole.content(mel, identity) if content is None else whole.emotion(mel, identity, content)
        return rows.mean(dim=1)


def left_over(vectors: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """How much of the vectors' spread within their own labels is explained by another label, from 0 to 1.

    Args:
        vectors: (B, D).
        own, other: (B,) numbers of labels.
    """
    around = vectors - _means(vectors, own)
    return _means(around, other).square().sum() / around.square().sum().clamp(min=1e-6)


def _means(vectors: Tensor, labels: Tensor) -> Tensor:
    """(B, D): for every row the mean of the rows with its label."""
    same = (labels[:, None] == labels).to(vectors)
    return same @ vectors / same.sum(dim=1, keepdim=True)


def fresh_factors(options: FactorOptions) -> VoiceFactors:
    """A network of random weights for training; ``options.seed`` alone decides them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(options.seed, "weights"))
        return VoiceFactors(options.sizes)


def save_factors(path: Path, network: VoiceFactors, facts: FactorFacts) -> None:
    """Write the file that the loader of audio encoders reads, with complete metadata. Raises OSError."""
    write_model(path, network.state_dict(), facts.metadata(), "voice-factors")


def state_path(path: Path, factor: str) -> Path:
    """Where the training state of a stage lies; its suffix keeps it out of the model lists."""
    return path.with_suffix(f".{factor}.training_state")


def train_factors(
    clips: VoiceClips,
    path: Path | None,
    options: FactorOptions | None = None,
    loop: LoopOptions | None = None,
    *,
    stop_after: tuple[str, int] | None = None,
    on_step: OnStage | None = None,
    device: torch.device | None = None,
) -> VoiceFactors | None:
    """Train the three stages one after the other; go on from the states beside ``path`` where there are any.

    Args:
        clips: what to learn from.
        path: the file that will be written, beside which the states lie; None keeps no state.
        options: what to train.
        loop: how long each stage is.
        stop_after: a factor and a step after which to stop, as if the user did.
        on_step: called after every step with the factor, its step and the losses; may raise to cancel.
        device: where to train; the CPU by default.

    Returns:
        The network in evaluation mode, or None where ``stop_after`` stopped it.

    Raises:
        TrainingFailed, BadCheckpoint: see `loop.train`.
    """
    options, loop, device = options or FactorOptions(), loop or LoopOptions(2000), device or torch.device("cpu")
    network = fresh_factors(options).to(device)
    for factor in FACTORS:
        network.eval().requires_grad_(False)
        getattr(network, factor).train().requires_grad_(True)
        task = StageTask(factor, network, clips, options, device)
        last = stop_after[1] if stop_after is not None and stop_after[0] == factor else None
        tell = None if on_step is None else _teller(on_step, factor)
        done = train(task, loop, None if path is None else state_path(path, factor), stop_after=last, on_step=tell)
        if last is not None and done < loop.steps:
            return None
    return network.eval().requires_grad_(False)


def facts_of(clips: VoiceClips, loop: LoopOptions, probe: str = "") -> FactorFacts:
    """Metadata of a file that ``train_factors`` finished."""
    counts = {
        name: len(clips.classes[factor])
        for name, factor in zip(("voices", "contents", "emotions"), FACTORS, strict=True)
    }
    steps = {f"steps_{factor}": loop.steps for factor in FACTORS}
    return FactorFacts(**steps, clips=len(clips), probe=probe, **counts)


def _teller(on_step: OnStage, factor: str) -> Callable[[int, Losses], None]:
    return lambda step, losses: on_step(factor, step, losses)


def _generator(options: FactorOptions, factor: str) -> torch.Generator:
    return generator_for(options.seed, "directions", factor)
