"""Second stage of LAFR's training: the denoiser learns to restore aligned latents in one step.

A low-rank change of the base model's attention is trained, and the adapter's mapper at a tenth of the rate; VAE and
base model stay as they are, but gradients pass through the decoder. The loss has the paper's levels (see `levels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.families.lafr.arch import LatentAlignAdapter
from ..adapters.families.lafr.layout import LafrFacts
from ..adapters.families.lafr.one_step import alpha_bar, clean_latent
from .checkpointing import write_model
from .degradations import Strengths
from .lafr import save_adapter, state_path
from .levels import Levels
from .loop import TOTAL, LoopOptions, OnStep, train
from .low_rank import LowRank
from .pairs import Encode, draw_pairs, encoded
from .pictures import Pictures

# Latents (B, 4, H, W) times the scale to pictures (B, 3, 8H, 8W) in 0..1, with gradients.
Decode = Callable[[Tensor], Tensor]
MAPPER_RATE = 0.1
_MAPPER = ("from_code.", "mapper.", "norm_out.", "conv_out.")


class RestoreTask:
    """The task of the second stage; see `loop.Task`. The paper's sizes: batch 2 x 4, rate 5e-5, 20000 steps.

    Args:
        pictures: clean ones.
        encode, decode: the VAE, see `pairs.Encode` and `Decode`.
        denoise: latents (B, 4, H, W) to the model's output at timestep ``facts.t_star``, for an empty prompt.
        model: the module inside ``denoise`` whose attention changes; its weights must be ordinary tensors, not such as
            were made in torch's inference mode (as hosts do), which keep no gradient: clone those first. Networks that
            add in place (ComfyUI of mid 2024) cannot be trained through.
        adapter: of the first stage.
        facts: of its file.
        levels: the loss.
        rank, batch, seed, strengths: of the change, of a step, of everything random, of the degradations.
    """

    network: nn.ModuleDict

    def __init__(
        self,
        pictures: Pictures,
        encode: Encode,
        decode: Decode,
        denoise: Callable[[Tensor], Tensor],
        model: nn.Module,
        adapter: LatentAlignAdapter,
        facts: LafrFacts,
        levels: Levels,
        rank: int = 32,
        batch: int = 2,
        seed: int = 0,
        strengths: Strengths | None = None,
    ) -> None:
        self.pictures, self.encode, self.decode, self.denoise, self.model = pictures, encode, decode, denoise, model
        self.facts, self.levels, self.batch, self.seed = facts, levels, batch, seed
        self.strengths = strengths or Strengths()
        self.device = adapter.conv_in.weight.device
        self.adapter, self.low_rank = adapter, LowRank(model, rank, seed).to(self.device)
        self.network = nn.ModuleDict({"adapter": adapter, "low_rank": self.low_rank})
        self.share = alpha_bar(facts.t_star)
        self.options: Mapping[str, Any] = {
            "task": "lafr_restore", "rank": rank, "batch": batch, "seed": seed, "t_star": facts.t_star,
            "pictures": len(pictures),
        }  # fmt: skip
        for name, parameter in adapter.named_parameters():
            parameter.requires_grad_(name.startswith(_MAPPER))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The change at the full rate, the mapper at a tenth."""
        mapper = [one for one in self.adapter.parameters() if one.requires_grad]
        return [{"params": list(self.low_rank.parameters())}, {"params": mapper, "lr": MAPPER_RATE}]

    def restored(self, bad: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) of latents of bad ones, with gradients."""
        with torch.no_grad():
            codes = self.adapter.looked_up(self.adapter.nearest(self.adapter.features(bad)))
        aligned = self.adapter.mapped(codes)
        with self.low_rank.attached(self.model):
            output = self.denoise(aligned)
        return self.decode(clean_latent(aligned, output, self.share, self.facts.prediction))

    def losses(self, step: int) -> dict[str, Tensor]:
        """Every level, and their weighted sum."""
        pairs = draw_pairs(self.pictures, self.seed, step, self.batch, self.strengths)
        total, found = self.levels.losses(self.restored(encoded(self.encode, pairs.bad, self.device)), pairs, step)
        return {**found, TOTAL: total}

    def after_step(self, step: int) -> None:
        """Nothing."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def save_change(self, path: Path) -> None:
        """Write the change as a LoRA file that any LoRA loader takes. Raises OSError."""
        facts = {"base": self.facts.base, "t_star": str(self.facts.t_star), "format": "lafr_restore_v1"}
        write_model(path, self.low_rank.file_tensors(), facts, "lora", self.facts.base)


def train_restoration(
    task: RestoreTask,
    change_file: Path,
    adapter_file: Path,
    loop: LoopOptions | None = None,
    *,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
) -> int:
    """Run the second stage, and write both of its results; go on from the state beside ``change_file`` if there is one.

    Args:
        task: the task.
        change_file: for the LoRA.
        adapter_file: for the adapter, whose mapper has changed; the two files belong together.
        loop, stop_after, on_step: see `loop.train`.

    Returns:
        How many steps are finished.

    Raises:
        TrainingFailed, BadCheckpoint: see `loop.train`.
        OSError: a file cannot be written.
    """
    loop = loop or LoopOptions(steps=20_000, learning_rate=5e-5)
    done = train(task, loop, state_path(change_file), stop_after=stop_after, on_step=on_step)
    task.save_change(change_file)
    save_adapter(adapter_file, task.adapter, replace(task.facts, steps=task.facts.steps + done))
    return done
