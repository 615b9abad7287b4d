"""How much a picture changes where no identity was asked for.

Each layer adds nothing outside a mask, but later layers mix places: convolutions spread what was added, self-attention
reads all of it. So the final latent changes everywhere; this says how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..faces.errors import BadImage, BadMask


@dataclass(frozen=True)
class Leakage:
    """Change of a latent against the plain model's, inside and outside the union of the masks.

    Attributes:
        inside, outside: root of the mean squared change, in the latent's units.
        peak: the largest change outside.
        area: share of the picture that lies outside.
    """

    inside: float
    outside: float
    peak: float
    area: float

    @property
    def ratio(self) -> float:
        """Outside relative to inside; 0 where nothing changed at all."""
        if self.outside == 0.0:
            return 0.0
        return self.outside / self.inside if self.inside else float("inf")

    def as_text(self) -> str:
        """One line."""
        return (
            f"change outside the masks {self.outside:.4g} ({self.area:.0%} of the picture, at most {self.peak:.4g}), "
            f"inside {self.inside:.4g}: {self.ratio:.3f}"
        )


def latent_leakage(plain: Tensor, patched: Tensor, masks: Sequence[Tensor]) -> Leakage:
    """Compare two final latents of one seed.

    Args:
        plain: (B, C, H, W) or (B, C, T, H, W), of the model without identities.
        patched: the same with them.
        masks: one mask per person, (h, w) or (N, h, w) with N 1, B or (for clips) T, of any size; a cell of the latent
            is inside as soon as a part of it lies in any mask.

    Raises:
        BadMask: no masks, other numbers of them, or a union that is empty or the whole picture.
        BadImage: latents of two shapes.
    """
    if plain.shape != patched.shape or plain.dim() not in (4, 5):
        raise BadImage(
            "leakage",
            expected="two latents of one shape (B, C, H, W) or (B, C, T, H, W)",
            found=f"{tuple(plain.shape)} and {tuple(patched.shape)}",
            cure="sample both with the same size and batch",
        )
    inside = _union(masks, plain)
    share = float(inside.float().mean())
    if share in (0.0, 1.0):
        raise BadMask(
            "leakage",
            expected="masks that cover a part of the picture",
            found="masks that cover nothing" if share == 0.0 else "masks that cover all of it",
            cure="measure with masks that leave a place for nobody",
        )
    change = (patched.float() - plain.float()).square()
    places = inside.expand_as(change)
    within, without = change[places], change[~places]
    return Leakage(
        inside=float(within.mean().sqrt()),
        outside=float(without.mean().sqrt()),
        peak=float(without.max().sqrt()),
        area=1.0 - share,
    )


def _union(masks: Sequence[Tensor], latent: Tensor) -> Tensor:
    """(B or 1, 1, [T or 1,] H, W): whether any mask reaches into a cell."""
    if not masks:
        raise BadMask("leakage", expected="at least one mask", found="none", cure="give the masks of the people")
    size = (int(latent.shape[-2]), int(latent.shape[-1]))
    inside = torch.zeros(1, *([1] * (latent.dim() - 3)), *size, dtype=torch.bool, device=latent.device)
    for mask in masks:
        stack = mask[None] if mask.dim() == 2 else mask
        cells = adaptive_max_pool2d(stack[:, None].to(latent.device, torch.float32), size) > 0
        inside = inside | _placed(cells, latent)
    return inside


def _placed(cells: Tensor, latent: Tensor) -> Tensor:
    """Masks (N, 1, H, W) as they stand against a latent: one, one per picture, or one per frame."""
    count = cells.shape[0]
    if latent.dim() == 4 and count in (1, latent.shape[0]):
        return cells
    if latent.dim() == 5 and count in (1, latent.shape[2]):
        return cells.transpose(0, 1)[None]
    wanted = latent.shape[0] if latent.dim() == 4 else latent.shape[2]
    raise BadMask(
        "leakage", expected=f"one mask or {wanted}", found=f"{count}", cure="give one mask, or one per picture or frame"
    )
