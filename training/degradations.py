"""The degradation model that face restorers are trained with: blur, resize, camera noise and JPEG, twice, seeded.

Order and ranges are those of RestorerID's training (Ying et al. 2024, arXiv:2411.14125), which follow Real-ESRGAN
(Wang et al. 2021, arXiv:2107.10833). Two differences: every picture draws its own numbers, not one set for a batch; and
JPEG is Pillow's, with 4:2:0 chroma, so that no gradient passes (none is needed: what is degraded is the input). What
the camera noise does is told in `degradation_camera`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .degradation_camera import CameraNoise, draw_camera
from .degradation_kernels import draw_blur, draw_sinc, filtered, gaussian_kernel
from .seeds import generator_for, pick, seed_for, uniform

Mode = Literal["area", "bilinear", "bicubic"]

_MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
_JPEG = (30, 95)
_LEAST_SIDE = 4
# Unsharp mask of Real-ESRGAN: 51 taps, whose width OpenCV derives from the radius.
_SHARP_TAPS, _SHARP_SIGMA, _SHARP_AMOUNT, _SHARP_FROM = 51, 8.0, 0.5, 10 / 255


@dataclass(frozen=True)
class Strengths:
    """How hard each part acts; 1 is what restorers are trained with, 0 leaves the part out.

    Attributes:
        blur: factor of the kernels' widths.
        resize: exponent of the scale, so that 2 means half of the half.
        noise: factor of the noise's deviation.
        jpeg: factor of what the quality lacks to 100.
        rounds: 0, 1 or 2.
    """

    blur: float = 1.0
    resize: float = 1.0
    noise: float = 1.0
    jpeg: float = 1.0
    rounds: int = 2


class Stage(Protocol):
    """One step of a degradation; its numbers are drawn already."""

    def apply(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in 0..1 to such pictures."""

    @property
    def text(self) -> str:
        """The step in words."""


@dataclass(frozen=True)
class Sharpen:
    """The unsharp mask that comes before everything else."""

    text: str = "sharpen"

    def apply(self, images: Tensor) -> Tensor:
        """Sharper where there are edges."""
        axis = gaussian_kernel(_SHARP_TAPS, (_SHARP_SIGMA, _SHARP_SIGMA)).sum(dim=0)
        edges = images - _separable(images, axis)
        soft = _separable((edges.abs() > _SHARP_FROM).to(images), axis)
        return soft * (images + _SHARP_AMOUNT * edges).clamp(0, 1) + (1 - soft) * images


@dataclass(frozen=True, eq=False)
class Filter:
    """A blur or a low pass."""

    kernel: Tensor
    text: str

    def apply(self, images: Tensor) -> Tensor:
        """Filtered."""
        return filtered(images, self.kernel)


@dataclass(frozen=True)
class Resize:
    """To (height, width), without antialiasing except by the mode ``area``."""

    height: int
    width: int
    mode: Mode

    def apply(self, images: Tensor) -> Tensor:
        """Resized."""
        align = {} if self.mode == "area" else {"align_corners": False}
        return functional.interpolate(images, (self.height, self.width), mode=self.mode, **align).clamp(0, 1)

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.mode} to {self.width}x{self.height}"


@dataclass(frozen=True)
class Jpeg:
    """Pillow's JPEG of a quality from 1 to 100."""

    quality: int

    def apply(self, images: Tensor) -> Tensor:
        """Compressed and read again, on the device and in the dtype given."""
        from PIL import Image

        pixels = to_bytes(images.movedim(1, -1)).cpu().numpy()
        read = []
        for picture in pixels:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=self.quality, subsampling="4:2:0")
            read.append(
                torch.frombuffer(bytearray(Image.open(buffer).tobytes()), dtype=torch.uint8).view(picture.shape)
            )
        return (torch.stack(read).to(images) / 255).movedim(-1, 1)

    @property
    def text(self) -> str:
        """In words."""
        return f"jpeg {self.quality}"


def draw_plan(height: int, width: int, seed: int, strengths: Strengths | None = None) -> tuple[Stage, ...]:
    """The steps for one picture of (height, width); the same seed gives the same steps. The last brings its size back.

    A plan whose parts all have strength 0 is empty, and leaves the picture as it is.
    """
    strengths = strengths or Strengths()
    generator = generator_for("degradation", seed)
    first = _round(generator, strengths, height, width, 1) if strengths.rounds >= 1 else []
    second = _round(generator, strengths, height, width, 2) if strengths.rounds >= 2 else []
    mode, ringing, swapped = _MODES[pick(generator, (1, 1, 1))], draw_sinc(generator), uniform(generator, 0, 1) < 0.5
    rings = uniform(generator, 0, 1) < 0.8
    if not first and not second:
        return ()
    back: list[Stage] = []
    if any(isinstance(stage, Resize) for stage in first + second):
        back.append(Resize(height, width, mode))
    if strengths.rounds >= 2 and strengths.blur > 0 and rings:
        back.append(Filter(ringing, "low pass"))
    compress = [stage for stage in second if isinstance(stage, Jpeg)]
    rest = [stage for stage in second if not isinstance(stage, Jpeg)]
    last = [*compress, *back] if swapped else [*back, *compress]
    # The unsharp mask belongs to the blur: without blur nothing should change edges.
    sharpen = [Sharpen()] if strengths.blur > 0 else []
    return (*sharpen, *first, *rest, *last)


def plan_for_frame(plan: Sequence[Stage], frame: int) -> tuple[Stage, ...]:
    """The same steps for another frame of a clip: only the noise itself is new."""
    return tuple(
        replace(stage, seed=seed_for(stage.seed, frame)) if isinstance(stage, CameraNoise) else stage for stage in plan
    )


def apply_plan(images: Tensor, plan: Sequence[Stage]) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1 through all steps; the result is rounded to 8 bits, unless the plan is empty."""
    if not plan:
        return images
    result = images
    for stage in plan:
        result = stage.apply(result)
    return to_bytes(result).to(images) / 255


def degrade(images: Tensor, seeds: Sequence[int], strengths: Strengths | None = None) -> Tensor:
    """Degrade pictures (B, 3, H, W) in 0..1, each by the plan of its own seed; nothing else decides the result."""
    height, width = images.shape[-2:]
    plans = [draw_plan(height, width, seed, strengths) for seed in seeds]
    return torch.cat([apply_plan(image[None], plan) for image, plan in zip(images, plans, strict=True)])


def plan_text(plan: Sequence[Stage]) -> str:
    """The steps in words."""
    return ", ".join(stage.text for stage in plan) or "nothing"


def to_bytes(images: Tensor) -> Tensor:
    """Values in 0..1 as rounded uint8."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def _round(generator: torch.Generator, strengths: Strengths, height: int, width: int, number: int) -> list[Stage]:
    """Blur, resize, noise and JPEG of one round. Every number is drawn, so that a part's strength moves no other."""
    stages: list[Stage] = []
    blurs = number == 1 or uniform(generator, 0, 1) < 0.8
    kernel, text = draw_blur(generator, 0.2, 3.0 if number == 1 else 1.5, strengths.blur)
    if blurs and strengths.blur > 0:
        stages.append(Filter(kernel, text))
    scale = _scale(generator, number) ** strengths.resize
    mode = _MODES[pick(generator, (1, 1, 1))]
    if scale != 1:
        stages.append(Resize(_side(height, scale), _side(width, scale), mode))
    camera = draw_camera(generator, strengths.noise)
    if strengths.noise > 0:
        stages.append(camera)
    quality = 100 - strengths.jpeg * (100 - uniform(generator, *_JPEG))
    if strengths.jpeg > 0:
        stages.append(Jpeg(int(min(100, max(1, round(quality))))))
    return stages


def _scale(generator: torch.Generator, number: int) -> float:
    """Scale of a round, of the original size: up, down or unchanged."""
    # Second round: Real-ESRGAN's shares; RestorerID's are not published apart from its ranges.
    shares = (0.1, 0.8, 0.1) if number == 1 else (0.3, 0.4, 0.3)
    kind = pick(generator, shares)
    place = uniform(generator, 0, 1)
    low, high = ((1.0, 1.5 if number == 1 else 1.2), (0.03, 1.0), (1.0, 1.0))[kind]
    return low + (high - low) * place


def _side(length: int, scale: float) -> int:
    return max(_LEAST_SIDE, int(length * scale))


def _separable(images: Tensor, axis: Tensor) -> Tensor:
    """Filter along both axes with one odd kernel, the rim repeated where it cannot be mirrored."""
    pad, channels = len(axis) // 2, images.shape[1]
    weight = axis.to(images).expand(channels, 1, -1)
    mode = "reflect" if min(images.shape[-2:]) > pad else "replicate"
    padded = functional.pad(images, (pad, pad, pad, pad), mode=mode)
    rows = functional.conv2d(padded, weight[:, :, None], groups=channels)
    return functional.conv2d(rows, weight[:, :, :, None], groups=channels)
