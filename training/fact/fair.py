"""FAIR, Face Adapting Increment Regularisation of FaceChain-FACT: a gated layer should act on the face alone.

For a layer with stream x and increment GSA(x), and a face mask M on that layer's token grid:
``|| GSA(x) * (1 - M) || / || x * (1 - M) ||``. Source: README and figures of modelscope/facechain. Order of the norm,
reduction over layers and weight are not stated there; the names of the published files suggest an enlarged mask and a
weight of 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .attached import Increment

Norm = Literal["l2", "l1"]
Reduction = Literal["mean", "sum"]
MaskRule = Literal["largest", "share"]
EPS = 1e-6


def enlarged(masks: Tensor, by: int) -> Tensor:
    """Face masks (B, h, w), 0..1, grown by a number of latent pixels to every side."""
    if by < 1:
        return masks
    return functional.max_pool2d(masks[:, None], 2 * by + 1, stride=1, padding=by)[:, 0]


def token_masks(masks: Tensor, tokens: int, rule: MaskRule = "largest") -> Tensor:
    """Masks (B, h, w) on a layer's grid, (B, tokens, 1).

    Args:
        masks: 0..1.
        tokens: of the layer.
        rule: ``largest`` takes the largest value under a token, so that one which shows any of the face counts as
            face; ``share`` takes the mean, so that a token of a coarse grid counts by how much of it is face.
    """
    height, width = masks.shape[-2:]
    rows = max(1, round(math.sqrt(tokens * height / width)))
    pool = functional.adaptive_max_pool2d if rule == "largest" else functional.adaptive_avg_pool2d
    return pool(masks[:, None], (rows, tokens // rows)).flatten(1)[..., None]


def fair(
    increments: Sequence[Increment],
    masks: Tensor,
    norm: Norm = "l2",
    reduction: Reduction = "mean",
    rule: MaskRule = "largest",
    eps: float = EPS,
) -> Tensor:
    """The regularisation of one run of the UNet, a number.

    Args:
        increments: one for each layer.
        masks: (B, h, w) of the face, 0..1, already enlarged.
        norm: over tokens and channels of each picture.
        reduction: over layers; over pictures it is always the mean.
        rule: see `token_masks`.
        eps: added to the denominator.
    """
    terms = [_term(one, masks, norm, rule, eps) for one in increments]
    stacked = torch.stack(terms)
    return stacked.sum() if reduction == "sum" else stacked.mean()


def _term(one: Increment, masks: Tensor, norm: Norm, rule: MaskRule, eps: float) -> Tensor:
    outside = 1 - token_masks(masks, one.stream.shape[1], rule).to(one.stream)
    order = 2 if norm == "l2" else 1
    above, below = ((part * outside).flatten(1) for part in (one.added, one.stream))
    # The stream is the frozen model's and the layers' before; pulling it up would be a way out of the loss.
    below = below.detach()
    return (_norm(above, order) / (below.norm(p=order, dim=1) + eps)).mean()


def _norm(rows: Tensor, order: int) -> Tensor:
    """Norm of each row, with a gradient of zero where the row is zero."""
    if order == 1:
        return rows.abs().sum(dim=1)
    squares = rows.square().sum(dim=1)
    empty = squares == 0
    return squares.masked_fill(empty, 1.0).sqrt().masked_fill(empty, 0.0)
