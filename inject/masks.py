"""A picture mask on the token grids of a UNet, resized once for each grid."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ..faces.errors import BadMask
from .memo import Memo
from .shared import Shared


class LatentMask(Shared):
    """Where an identity acts.

    Args:
        mask: (H, W) or (B, H, W), 0..1, of any size: it is resized bilinearly to each level's token grid. B is 1
        (every picture of the
            batch), or the number of pictures or frames of the batch (one mask each); where only a window of the frames
            is sampled at once, the window's own masks act.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = checked_mask(mask)
        self._memo: Memo[Tensor] = Memo(limit=16)
        self.digest = hashlib.sha256(self._mask.numpy().tobytes() + repr(tuple(self._mask.shape)).encode()).hexdigest()

    @property
    def empty(self) -> bool:
        """Whether it is black everywhere."""
        return not bool(self._mask.any())

    def rows(self, tokens: Tensor, chunks: int, extra: Mapping[str, Any]) -> Tensor:
        """The mask for hidden states ``tokens`` (chunks * R, N, C): (chunks * R or 1, N, 1) in their dtype and
        device.
        """
        height, width = token_grid(extra, tokens.shape[1])
        per_chunk = tokens.shape[0] // chunks
        window = frame_window(extra)
        key = (height, width, chunks, per_chunk, window, tokens.dtype, tokens.device)
        return self._memo.get(key, lambda: self._resized(height, width, chunks, per_chunk, window).to(tokens))

    def _resized(self, height: int, width: int, chunks: int, per_chunk: int, window: tuple[int, ...] | None) -> Tensor:
        mask = self._mask
        if window is not None and len(window) == per_chunk and len(mask) > max(window):
            mask = mask[list(window)]
        count = mask.shape[0]
        if count not in (1, per_chunk):
            raise BadMask(
                "identity mask",
                expected=f"one mask, or one for each of the {per_chunk} pictures sampled together",
                found=f"{count} masks",
                cure="give a single mask or match the batch size of the latent",
            )
        small = F.interpolate(
            mask[:, None], size=(height, width), mode="bilinear", align_corners=False, antialias=False
        )
        rows = small.reshape(count, height * width, 1)
        return rows if count == 1 else rows.repeat(chunks, 1, 1)


def acting_mask(mask: Tensor | None, strength: float) -> LatentMask | None:
    """Where something of a strength acts; None for everywhere.

    Raises:
        BadMask: no mask, or one that is black everywhere, so that the strength would have no effect.
    """
    if mask is None:
        return None
    made = LatentMask(mask)
    if strength != 0 and made.empty:
        raise BadMask(
            "identity mask",
            expected="a mask that is white somewhere",
            found="one that is black everywhere (a photo without transparency gives such a mask)",
            cure="draw one, connect another, disconnect it, or set the strength to 0",
        )
    return made


def frame_window(extra: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Numbers of the frames that are sampled in this call, or None where all are.

    The host's own context windows name them (``context_window``), AnimateDiff-Evolved does too (``ad_params``).
    """
    frames = getattr(extra.get("context_window"), "index_list", None)
    if frames is None:
        frames = (extra.get("ad_params") or {}).get("sub_idxs")
    return None if frames is None else tuple(int(frame) for frame in frames)


def checked_mask(mask: Tensor) -> Tensor:
    """A mask (H, W) or (B, H, W) as (B, H, W) float32 0..1 on the CPU. Raises BadMask for what is none."""
    if mask.dim() == 2:
        mask = mask[None]
    if mask.dim() != 3 or mask.numel() == 0:
        raise BadMask(
            "identity mask",
            expected="a mask (H, W) or (B, H, W) with at least one pixel",
            found=f"the shape {tuple(mask.shape)}",
            cure="connect a MASK that is not empty",
        )
    mask = mask.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(mask).all()):
        raise BadMask(
            "identity mask",
            expected="values 0..1",
            found="values that are not finite",
            cure="repair the mask before applying",
        )
    return mask.clamp(0, 1).contiguous()


def token_grid(extra: Mapping[str, Any], tokens: int) -> tuple[int, int]:
    """Height and width of the token grid with ``tokens`` cells, found along the chain of halvings of the latent's
    shape.

    Raises:
        BadMask: when no level of the latent has that many cells.
    """
    shape = extra.get("original_shape")
    height, width = (int(shape[-2]), int(shape[-1])) if shape is not None else (0, 0)
    while height * width > max(tokens, 1):
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens or tokens == 0:
        raise BadMask(
            "identity mask",
            expected="a model whose token grid is the latent halved some times",
            found=f"{tokens} tokens for the latent shape {tuple(shape) if shape is not None else 'unknown'}",
            cure="remove the mask, or the node that changes the model's resolution between levels",
        )
    return height, width
