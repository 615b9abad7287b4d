"""What HunyuanVideo-Avatar changes from step to step: noise levels, guidance, face mask, negative branch.

Facts: ``hymm_sp/diffusion/pipelines/pipeline_hunyuan_video_audio.py`` and ``schedulers`` of
Tencent-Hunyuan/HunyuanVideo-Avatar. For its first ten steps the negative branch is the negative prompt and the face
mask counts 0.6; from then on the negative branch is the prompt itself with silent audio, so that guidance is of the
audio alone. The ten are absolute, whatever the number of steps; official runs have 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....faces.errors import LikenessError

STEPS, FLOW_SHIFT = 50, 5.0
# Under this name a run tells the patched blocks, in the options of each model call, by how much masks count.
MASK_SCALE = "likeness_avatar_mask_scale"


class BadGuidance(LikenessError):
    """A guidance schedule that cannot be followed."""


@dataclass(frozen=True)
class AvatarGuidance:
    """The schedule; the defaults are the official ones.

    Strengths fall on a line: at step i of N, ``end + (1 - i / N) * (start - end)``.

    Attributes:
        switch_step: the first step (from 0) whose guidance is of the audio alone.
        text_start, text_end: guidance before that step (official ``cfg-scale``, and the 2 it falls to).
        audio_start, audio_end: guidance from that step on.
        early_mask: factor of every face mask before that step; 1 from then on.
    """

    switch_step: int = 10
    text_start: float = 7.5
    text_end: float = 2.0
    audio_start: float = 6.5
    audio_end: float = 3.5
    early_mask: float = 0.6

    def __post_init__(self) -> None:
        numbers = (self.text_start, self.text_end, self.audio_start, self.audio_end)
        if self.switch_step < 0 or not all(0 <= number < float("inf") for number in numbers):
            found = f"switch_step {self.switch_step} and {', '.join(f'{number:g}' for number in numbers)}"
            raise _refused("a step of 0 or later, and strengths of 0 or more", found)
        if not 0 <= self.early_mask <= 1:
            raise _refused("an early mask of 0 to 1", f"{self.early_mask:g}")

    def audio_only(self, step: int) -> bool:
        """Whether the negative branch of step ``step`` is the prompt itself with silent audio."""
        return step >= self.switch_step

    def strength(self, step: int, steps: int) -> float:
        """Guidance of step ``step`` (from 0) of ``steps``."""
        late = self.audio_only(step)
        start, end = (self.audio_start, self.audio_end) if late else (self.text_start, self.text_end)
        return (1 - step / max(1, steps)) * (start - end) + end

    def mask_scale(self, step: int) -> float:
        """Factor of every face mask at step ``step``."""
        return 1.0 if self.audio_only(step) else self.early_mask


def official_sigmas(steps: int = STEPS, shift: float = FLOW_SHIFT) -> Tensor:
    """Noise levels (steps + 1,) from 1 to 0: an even line u, bent to ``shift u / (1 + (shift - 1) u)``."""
    if steps < 1 or not 0 < shift < float("inf"):
        raise _refused("1 step or more and a positive shift", f"{steps} steps, shift {shift:g}")
    even = torch.linspace(1, 0, steps + 1)
    return shift * even / (1 + (shift - 1) * even)


def step_of(sigma: float, sigmas: Sequence[float]) -> int:
    """Number (from 0) of the step in which a model call at noise level ``sigma`` falls.

    A sampler may call the model between two levels; such a call belongs to the step that began.

    Args:
        sigma: of the call.
        sigmas: all levels of the run, falling.
    """
    begun = sum(level >= sigma * (1 - 1e-5) for level in sigmas)
    return min(max(begun - 1, 0), max(len(sigmas) - 2, 0))


def _refused(expected: str, found: str) -> BadGuidance:
    return BadGuidance("guidance of an avatar", expected=expected, found=found, cure="go back to the default values")
