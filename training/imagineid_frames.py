"""Training of ImagineID's three adapters on a frozen latent diffusion model: our construction, see their own notes.

The model is not touched; it is called with what the adapters make, and the adapters learn to make its prediction of the
noise right. Each condition is left out of some steps, so that any of them can be missing later, as the first frame of a
clip has none before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..adapters.families.imagineid.frames.arch import FrameAdapters, FrameSizes
from ..adapters.families.imagineid.frames.layout import FrameFacts
from ..faces.errors import LikenessError
from .checkpointing import write_model
from .loop import TOTAL, LoopOptions, OnStep, train
from .seeds import generator_for, seed_for

TIMESTEPS = 1000


class BadFrames(LikenessError):
    """Frames that do not belong together or are not finite."""


class Denoiser(Protocol):
    """The frozen model: noisy latents (B, 4, h, w), timesteps (B,), pseudo-words (B, words, context) for the text, and
    maps to add to its four levels, to the noise (B, 4, h, w). Gradients must flow through it to its inputs.
    """

    def __call__(self, noisy: Tensor, timesteps: Tensor, words: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Predict the noise."""


@dataclass(frozen=True, eq=False)
class Frames:
    """N frames and what each is conditioned on.

    Attributes:
        latents: (N, 4, h, w) scaled latents of the frames.
        geometry: (N, 3, 8 h, 8 w) pictures of the face's geometry, 0..1.
        before: (N, 4, h, w) latents of the frames before.
        masks: (N, 1, h, w) face masks of the frames before, 1 where the face is.
        identity: (N, Di) who speaks.
        emotion: (N, De) how, in that frame.
    """

    latents: Tensor
    geometry: Tensor
    before: Tensor
    masks: Tensor
    identity: Tensor
    emotion: Tensor

    def __post_init__(self) -> None:
        count, _, height, width = self.latents.shape if self.latents.ndim == 4 else (0, 0, 0, 0)
        wanted = {
            "latents": (count, 4, height, width),
            "geometry": (count, 3, 8 * height, 8 * width),
            "before": (count, 4, height, width),
            "masks": (count, 1, height, width),
            "identity": (count, self.identity.shape[-1]),
            "emotion": (count, self.emotion.shape[-1]),
        }
        for name, shape in wanted.items():
            value: Tensor = getattr(self, name)
            if tuple(value.shape) != shape or not count:
                raise BadFrames(
                    name,
                    expected=f"one or more of {shape}",
                    found=f"{tuple(value.shape)}",
                    cure="make them of one clip",
                )
            if not bool(torch.isfinite(value).all()):
                raise BadFrames(name, expected="finite numbers", found="some that are not", cure="make them again")

    def __len__(self) -> int:
        return len(self.latents)

    def taken(self, rows: Tensor) -> Frames:
        """The frames of these numbers."""
        return Frames(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class FrameOptions:
    """What is trained.

    Attributes:
        seed: of everything random.
        batch: frames in a step.
        drop: how often each of the three conditions is left out.
        words, hidden: see `FrameSizes`.
    """

    seed: int = 0
    batch: int = 8
    drop: float = 0.1
    words: int = 4
    hidden: int = 128


class FrameTask:
    """All three adapters at once; see `loop.Task`.

    Args:
        frames: to learn from.
        denoiser: the frozen model.
        sizes: of the adapters.
        options: what to train.
    """

    def __init__(self, frames: Frames, denoiser: Denoiser, sizes: FrameSizes, options: FrameOptions) -> None:
        self.frames = frames
        self.denoiser = denoiser
        self.frame_options = options
        self.network = fresh_adapters(sizes, options.seed)
        self.options: Mapping[str, Any] = {"task": "imagineid_frames", "frames": len(frames), **asdict(options)}
        # The usual schedule of SD1.5: linear in the root of beta.
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
        self._kept = (1 - betas).cumprod(0).float()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases do not."""
        parameters = list(self.network.parameters())
        return [
            {"params": [one for one in parameters if one.ndim > 1]},
            {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]

    def losses(self, step: int) -> dict[str, Tensor]:
        """Mean squared error of the predicted noise."""
        generator = generator_for(self.frame_options.seed, "frames", step)
        rows = torch.randint(len(self.frames), (self.frame_options.batch,), generator=generator)
        kept = (torch.rand(len(rows), 3, generator=generator) >= self.frame_options.drop).float()
        return {TOTAL: self.error(self.network, self.frames.taken(rows), generator, kept)}

    def error(
        self, network: FrameAdapters, frames: Frames, generator: torch.Generator, kept: Tensor | None = None
    ) -> Tensor:
        """The error on frames under noise and timesteps of ``generator``; kept (N, 3) are factors of the conditions."""
        noise = torch.randn(frames.latents.shape, generator=generator)
        timesteps = torch.randint(TIMESTEPS, (len(frames),), generator=generator)
        part = self._kept[timesteps][:, None, None, None]
        noisy = part.sqrt() * frames.latents + (1 - part).sqrt() * noise
        words, levels = conditions(network, frames, torch.ones(len(frames), 3) if kept is None else kept)
        return functional.mse_loss(self.denoiser(noisy, timesteps, words, levels), noise)

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing more is kept."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""


def conditions(network: FrameAdapters, frames: Frames, kept: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Pseudo-words (B, words, context) and the sum of both adapters' maps, each row times its factor in (B, 3)."""
    words = network.textual_inversion(frames.identity, frames.emotion) * kept[:, 0, None, None]
    space = network.spatial_conditional(frames.geometry)
    blend = network.mask_guided_blending(frames.before, frames.masks)
    factors = kept[:, :, None, None, None]
    return words, [one * factors[:, 1] + other * factors[:, 2] for one, other in zip(space, blend, strict=True)]


def fresh_adapters(sizes: FrameSizes, seed: int) -> FrameAdapters:
    """Adapters of random weights, their last layers on the UNet at zero; ``seed`` alone decides them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "adapters"))
        network = FrameAdapters(sizes)
    with torch.no_grad():
        for adapter in (network.spatial_conditional, network.mask_guided_blending):
            for layer in adapter.zero_out:
                for parameter in layer.parameters():
                    parameter.zero_()
    return network


def train_frames(
    frames: Frames,
    denoiser: Denoiser,
    path: Path,
    facts: FrameFacts,
    sizes: FrameSizes | None = None,
    options: FrameOptions | None = None,
    loop: LoopOptions | None = None,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
) -> FrameAdapters:
    """Train the adapters and write them to ``path``; go on from the state beside it if there is one.

    Args:
        frames: to learn from.
        denoiser: the frozen model; a module's parameters must not ask for gradients.
        path: the file, ``.safetensors``.
        facts: base model and the file of voice factors; steps and frames are filled in.
        sizes: of the model's text and levels; words, hidden and the factors' widths are taken from the others.
        options, loop: what and how long.
        stop_after, on_step: see `loop.train`.

    Raises:
        BadFrames: a denoiser that would be trained too.
        TrainingFailed, BadCheckpoint: see `loop.train`.
        OSError: the file cannot be written.
    """
    if isinstance(denoiser, nn.Module) and any(one.requires_grad for one in denoiser.parameters()):
        raise BadFrames(
            "denoiser", expected="a frozen model", found="one that asks for gradients", cure="freeze its parameters"
        )
    options, loop = options or FrameOptions(), loop or LoopOptions(20_000, 1e-4)
    made = replace(
        sizes or FrameSizes(),
        identity=frames.identity.shape[1],
        emotion=frames.emotion.shape[1],
        words=options.words,
        hidden=options.hidden,
    )
    task = FrameTask(frames, denoiser, made, options)
    done = train(task, loop, path.with_suffix(".training_state"), stop_after=stop_after, on_step=on_step)
    told = replace(facts, steps=done, frames=len(frames))
    write_model(path, task.network.state_dict(), told.metadata(task.network), "voice-frame-adapters")
    return task.network


Swap = Callable[[Frames], Frames]


@torch.no_grad()
def right_and_swapped(task: FrameTask, frames: Frames, swap: Swap, rounds: int = 8) -> tuple[float, float]:
    """Mean error under the frames' own conditions and under those of ``swap``, with the same noise."""
    sums = [0.0, 0.0]
    for turn in range(rounds):
        for place, asked in enumerate((frames, swap(frames))):
            generator = generator_for(task.frame_options.seed, "held out", turn)
            sums[place] += float(task.error(task.network, asked, generator)) / rounds
    return sums[0], sums[1]
