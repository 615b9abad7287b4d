"""The character's picture in a video: added to its tokens, and as one more frame of tokens before the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.hunyuan_avatar.adapter import HunyuanAvatarAdapter
from ..faces.errors import BadImage
from .memo import Memo
from .shared import Shared

VIDEO_DIMENSIONS = 5


@dataclass(frozen=True, eq=False)
class Character(Shared):
    """The picture of who speaks.

    Attributes:
        adapter: what embeds it.
        latents: (1, C, T, H, W) of the still picture repeated in time, in the model's own scale, float32 on the CPU.
        strength: factor of what is added to the video's tokens; not 0.
    """

    adapter: HunyuanAvatarAdapter
    latents: Tensor
    strength: float
    placed: Memo[Tensor] = field(default_factory=lambda: Memo(limit=2))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in cells."""
        return int(self.latents.shape[-2]), int(self.latents.shape[-1])

    def first_frame(self, x: Tensor) -> Tensor:
        """The frame whose tokens stand before the video's, for latents ``x`` (B, C, T, H, W): (B, C, 1, H, W)."""
        return self._like(x)[:, :, :1].expand(x.shape[0], -1, -1, -1, -1)

    def added(self, like: Tensor, frames: int) -> Tensor:
        """What is added to video tokens ``like`` (B, frames * n, width): (1, frames * n, width)."""
        embedded = self.adapter.reference(self._like(like)).unflatten(1, (self.latents.shape[2], -1))
        places = torch.tensor(frame_places(self.latents.shape[2], frames), device=like.device)
        term = embedded.index_select(1, places).flatten(1, 2)
        return term if self.strength == 1.0 else term * self.strength

    def _like(self, x: Tensor) -> Tensor:
        return self.placed.get((x.device, x.dtype), lambda: self.latents.to(x.device, x.dtype))


def frame_places(given: int, frames: int) -> list[int]:
    """Which of ``given`` latent frames of a still picture stands for each of ``frames``.

    Enough frames are taken as they are. Fewer stand for the rest: the first, then the second again and again, then the
    last (a picture encoded as nine video frames gives three); a single one stands for all.
    """
    if given >= frames:
        return list(range(frames))
    middle = min(1, given - 1)
    return [0, *(middle for _ in range(frames - 2)), given - 1]


def picture_latents(samples: Any, scaled: Callable[[Tensor], Tensor]) -> Tensor:
    """The latents of a picture as `Character` takes them.

    Args:
        samples: of a LATENT: (1, C, T, H, W), or (1, C, H, W) of one frame.
        scaled: the host's scaling of latents.

    Raises:
        BadImage: another shape, or values that are not finite.
    """
    latents = torch.as_tensor(samples).detach().to("cpu", torch.float32)
    if latents.ndim == VIDEO_DIMENSIONS - 1:
        latents = latents[:, :, None]
    if latents.ndim != VIDEO_DIMENSIONS or latents.shape[0] != 1 or not bool(torch.isfinite(latents).all()):
        raise BadImage(
            "character picture",
            expected="the latent of one picture by HunyuanVideo's VAE, (1, 16, frames, height, width)",
            found=f"the shape {tuple(latents.shape)}",
            cure="encode one picture with the VAE of HunyuanVideo",
        )
    return scaled(latents).contiguous()
