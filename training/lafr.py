"""First stage of LAFR's training: the codebook adapter learns on latents alone (Li et al. 2025, arXiv:2505.23462).

The paper's loss is the L1 distance between the aligned latent of the bad picture and the latent of the clean one. Added
here: the same for the clean picture itself, so that the codes become a dictionary of clean latents, and the two usual
terms of a codebook. The run warms up without codes, which then start as k-means of clean features.

Two defects of RestorerID's published training are kept out: pairs are never shuffled apart (see `pairs`), and nothing
starts at zero in a way that blocks gradients; from the first step on every parameter that takes part has one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..adapters.families.lafr.arch import GROUPS, LatentAlignAdapter
from ..adapters.families.lafr.layout import LafrFacts
from ..faces.errors import LikenessError
from .checkpointing import write_model
from .codebook import k_means, perplexity
from .degradations import Strengths
from .loop import TOTAL, LoopOptions, OnStep, train
from .pairs import Encode, draw_pairs, encoded
from .pictures import Pictures, stacked
from .run import NotedTask
from .seeds import generator_for

# Clean pictures, and rows for each code, that the codes start from.
_START_PICTURES, _START_ROWS = 64, 32


class BadOptions(LikenessError):
    """Training options that fit nothing."""


@dataclass(frozen=True)
class LafrOptions:
    """Sizes of the network, and weights of the loss.

    Attributes:
        seed: of everything random.
        batch: pictures in a step.
        hidden, code_dim, codes, blocks: see `LatentAlignAdapter`.
        warmup: steps without codes.
        reconstruction: weight of the clean picture's own distance.
        commitment: weight of the term that keeps features near their codes.
        dead_after: steps after which a code that nobody uses gets a new place.
        mirror: also train on mirrored pictures.
        strengths: of the degradations.
    """

    seed: int = 0
    batch: int = 16
    hidden: int = 96
    code_dim: int = 256
    codes: int = 1024
    blocks: int = 2
    warmup: int = 200
    reconstruction: float = 0.5
    commitment: float = 0.25
    dead_after: int = 1000
    mirror: bool = True
    strengths: Strengths = field(default_factory=Strengths)

    def __post_init__(self) -> None:
        if self.hidden % GROUPS or min(self.hidden, self.code_dim, self.codes, self.batch, self.dead_after) < 1:
            raise BadOptions(
                "LAFR training",
                expected=f"hidden of a multiple of {GROUPS}, and sizes above 0",
                found=f"hidden {self.hidden}, code_dim {self.code_dim}, codes {self.codes}, batch {self.batch}",
                cure="keep the defaults where you are not sure",
            )


class AlignTask:
    """The task of the first stage; see `loop.Task`.

    Args:
        pictures: clean ones.
        encode: the base model's VAE, see `pairs.Encode`.
        options: what to train.
        device: where to train; on CUDA two runs may differ in the last bits, as its kernels do.
    """

    network: LatentAlignAdapter

    def __init__(
        self, pictures: Pictures, encode: Encode, options: LafrOptions, device: torch.device | None = None
    ) -> None:
        self.pictures = pictures
        self.encode = encode
        self.lafr = options
        self.device = device or torch.device("cpu")
        self.network = fresh_adapter(options).to(self.device)
        told = {"task": "lafr_align", "pictures": len(pictures), "files": pictures.digest}
        self.options: Mapping[str, Any] = {**told, **asdict(options)}
        self._idle = torch.zeros(options.codes, dtype=torch.int64)
        self._last: tuple[Tensor, Tensor] | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Convolution weights decay; norms, biases and codes do not."""
        decaying = [module.weight for module in self.network.modules() if isinstance(module, nn.Conv2d)]
        known = {id(one) for one in decaying}
        others = [one for one in self.network.parameters() if id(one) not in known]
        return [{"params": decaying}, {"params": others, "weight_decay": 0.0}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """Alignment, reconstruction, and from the end of the warm-up the two terms of the codebook."""
        options, network = self.lafr, self.network
        if step == options.warmup:
            self._start_codes()
        pairs = draw_pairs(self.pictures, options.seed, step, options.batch, options.strengths, options.mirror)
        clean, bad = (encoded(self.encode, images, self.device) for images in (pairs.clean, pairs.bad))
        features = network.features(torch.cat([bad, clean]))
        codes = features
        found: dict[str, Tensor] = {}
        if step >= options.warmup:
            numbers = network.nearest(features.detach())
            nearest = network.looked_up(numbers)
            self._last = (features.detach(), numbers)
            found["codebook"] = functional.mse_loss(nearest, features.detach())
            found["commitment"] = functional.mse_loss(features, nearest.detach())
            # Straight through: the mapper sees codes, the extractor gets the mapper's gradient.
            codes = features + (nearest - features).detach()
        aligned, rebuilt = network.mapped(codes).chunk(2)
        found["align"] = functional.l1_loss(aligned, clean)
        found["reconstruct"] = functional.l1_loss(rebuilt, clean)
        found[TOTAL] = found["align"] + options.reconstruction * found["reconstruct"]
        if step >= options.warmup:
            found[TOTAL] = found[TOTAL] + found["codebook"] + options.commitment * found["commitment"]
            found["perplexity"] = perplexity(numbers, options.codes)
        return found

    def after_step(self, step: int) -> None:
        """Count how long each code was idle; move those idle for too long to features of this step."""
        if self._last is None:
            return
        features, numbers = self._last
        used = torch.bincount(numbers.flatten(), minlength=self.lafr.codes).cpu() > 0
        self._idle = torch.where(used, 0, self._idle + 1)
        dead = (self._idle >= self.lafr.dead_after).nonzero()[:, 0]
        if len(dead):
            rows = features.movedim(1, -1).flatten(0, -2)
            generator = generator_for(self.lafr.seed, "dead codes", step)
            chosen = torch.randint(len(rows), (len(dead),), generator=generator).to(rows.device)
            with torch.no_grad():
                self.network.codebook.weight[dead.to(rows.device)] = rows[chosen]
            self._idle[dead] = 0

    def extra_state(self) -> dict[str, Tensor]:
        """How long each code was idle."""
        return {"idle": self._idle}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self._idle = tensors["idle"].clone()

    @torch.no_grad()
    def _start_codes(self) -> None:
        generator = generator_for(self.lafr.seed, "codes")
        numbers = torch.randperm(len(self.pictures), generator=generator)[:_START_PICTURES].tolist()
        clean = [encoded(self.encode, stacked(self.pictures, [one]), self.device) for one in numbers]
        rows = torch.cat([self.network.features(one).movedim(1, -1).flatten(0, -2).cpu() for one in clean])
        rows = rows[torch.randperm(len(rows), generator=generator)[: _START_ROWS * self.lafr.codes]]
        self.network.codebook.weight.copy_(k_means(rows, self.lafr.codes, generator))


@dataclass(frozen=True)
class HeldOut:
    """Mean L1 distances to the clean latents, on degradations that training never draws.

    Attributes:
        bad: of the bad pictures' latents.
        aligned: of the same after the adapter.
    """

    bad: float
    aligned: float


def fresh_adapter(options: LafrOptions) -> LatentAlignAdapter:
    """A network of random weights for training; ``options.seed`` alone decides them."""
    with torch.device("meta"):
        network = LatentAlignAdapter(4, options.hidden, options.code_dim, options.codes, options.blocks)
    network = network.to_empty(device="cpu")
    generator = generator_for(options.seed, "weights")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                limit = 1 / math.sqrt(module.weight[0].numel())
                for parameter in (module.weight, module.bias):
                    if parameter is not None:
                        parameter.uniform_(-limit, limit, generator=generator)
            elif isinstance(module, nn.GroupNorm):
                module.weight.fill_(1)
                module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                module.weight.uniform_(-1 / options.codes, 1 / options.codes, generator=generator)
    return network


@torch.no_grad()
def held_out(
    network: LatentAlignAdapter,
    pictures: Pictures,
    encode: Encode,
    options: LafrOptions,
    rounds: int = 1,
    limit: int | None = None,
) -> HeldOut:
    """Measure a network on the first ``limit`` pictures (all by default), ``rounds`` held-out degradations of each."""
    sums = [0.0, 0.0]
    used = len(pictures) if limit is None else min(limit, len(pictures))
    for turn in range(rounds):
        for number in range(used):
            one = _Single(pictures, number)
            pair = draw_pairs(one, options.seed, -1 - turn * used - number, 1, options.strengths, mirror=False)
            clean, bad = (encoded(encode, images, network.conv_in.weight.device) for images in (pair.clean, pair.bad))
            for place, latent in enumerate((bad, network(bad))):
                sums[place] += float((latent - clean).abs().mean())
    count = rounds * used
    return HeldOut(sums[0] / count, sums[1] / count)


def save_adapter(path: Path, network: LatentAlignAdapter, facts: LafrFacts) -> None:
    """Write the file that the loader of adapters reads, with complete metadata. Raises OSError."""
    write_model(path, network.state_dict(), facts.metadata(network), "latent-adapter", facts.base)


def state_path(path: Path) -> Path:
    """Where the training state of an adapter file lies; its suffix keeps it out of the model lists."""
    return path.with_suffix(".training_state")


def train_lafr(
    pictures: Pictures,
    encode: Encode,
    path: Path,
    facts: LafrFacts,
    options: LafrOptions | None = None,
    loop: LoopOptions | None = None,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
    device: torch.device | None = None,
) -> LatentAlignAdapter:
    """Train an adapter and write it to ``path``; go on from the state beside it if there is one.

    Args:
        pictures: clean ones; 600 faces are the paper's number.
        encode: the base model's VAE, see `pairs.Encode`; its scale must be that of ``facts``.
        path: the adapter's file, ``.safetensors``.
        facts: base model, scale, timestep; steps, pictures and size are filled in.
        options, loop: what and how long.
        stop_after, on_step: see `loop.train`.
        device: where to train; the CPU by default.

    Raises:
        TrainingFailed, BadCheckpoint: see `loop.train`.
        OSError: the file cannot be written.
    """
    task = AlignTask(pictures, encode, options or LafrOptions(), device)
    loop = loop or LoopOptions(steps=50_000)
    noted = NotedTask(task, {"base": facts.base})
    done = train(noted, loop, state_path(path), stop_after=stop_after, on_step=on_step)
    told = {"steps": done, "pictures": len(pictures), "size": pictures.size}
    save_adapter(path, task.network, LafrFacts(**{**asdict(facts), **told}))
    return task.network


class _Single:
    """One of several pictures."""

    def __init__(self, pictures: Pictures, number: int) -> None:
        self.size, self.digest = pictures.size, pictures.digest
        self._pictures = pictures
        self._number = number

    def __len__(self) -> int:
        return 1

    def name(self, number: int) -> str:
        """Its name."""
        return self._pictures.name(self._number)

    def picture(self, number: int) -> Tensor:
        """The picture."""
        return self._pictures.picture(self._number)
