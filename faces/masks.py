"""Masks: what a user may connect, the soft squares that paste a face back, and the head mask of FaceChain-FACT."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .components import largest_solid
from .errors import BadMask
from .filters import dilate, erode, float_kernel_size, gaussian_blur
from .warp import transform_points, warp

Box = tuple[int, int, int, int]


def as_mask(mask: Tensor, batch: int, height: int, width: int, what: str = "mask", of: str = "picture") -> Tensor:
    """Return the mask (B, H, W) float32, 0..1, for ``batch`` pictures of ``height`` x ``width``.

    Args:
        mask: (H, W), (1, H, W) or (B, H, W), any dtype; one mask serves all pictures. Another size is stretched to
            the picture's: bilinear, half-pixel centres. Values are clipped to 0..1.
        what, of: the mask and what has one, for messages.

    Raises:
        BadMask: other dimensions, no pixels, NaN, or a count that is neither one nor the number of pictures.
    """
    shape = tuple(mask.shape)
    if mask.ndim not in (2, 3) or mask.numel() == 0:
        raise BadMask(
            what,
            expected="a mask (H, W), (1, H, W) or (B, H, W) with pixels",
            found=f"a tensor of shape {shape}",
            cure="connect a MASK, or disconnect the input",
        )
    mask = (mask[None] if mask.ndim == 2 else mask).float()
    if mask.shape[0] not in (1, batch):
        raise BadMask(
            what,
            expected=f"one mask or {batch}, one for each {of}",
            found=f"{mask.shape[0]} masks",
            cure=f"give one mask for all {of}s or as many masks as {of}s",
        )
    if not bool(torch.isfinite(mask).all()):
        raise BadMask(what, expected="finite values", found="NaN or infinity", cure="look at what made this mask")
    return resize(mask, height, width).clamp(0, 1).expand(batch, -1, -1)


def resize(masks: Tensor, height: int, width: int) -> Tensor:
    """Return masks (B, H, W) stretched to (B, height, width), bilinear with half-pixel centres."""
    if masks.shape[-2:] == (height, width):
        return masks
    return F.interpolate(masks[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]


def box_mask(size: int, blur: float = 0.3, padding: tuple[float, float, float, float] = (0, 0, 0, 0)) -> Tensor:
    """Return the soft square (size, size), 0..1, of a crop (facefusion, create_box_mask).

    Args:
        size: side of the crop.
        blur: 0..1, the share of half the side over which the rim fades.
        padding: percent of the side cut off at the top, right, bottom and left.
    """
    amount = int(size * 0.5 * blur)
    edge = max(amount // 2, 1)
    top, right, bottom, left = (max(edge, int(size * percent / 100)) for percent in padding)
    mask = torch.zeros(size, size)
    mask[top : size - bottom, left : size - right] = 1
    sigma = amount * 0.25
    return gaussian_blur(mask, float_kernel_size(sigma), sigma) if amount > 0 else mask


def region_of(matrix: Tensor, size: int, height: int, width: int, margin: int = 0) -> Box:
    """Return the box ``x1 y1 x2 y2`` in whole pixels that a crop covers in its picture, cut to the picture.

    Args:
        matrix: (2, 3) from crop to picture.
        size: side of the crop.
        margin: pixels added on each side before cutting.
    """
    corners = torch.tensor([[0.0, 0.0], [size, 0.0], [size, size], [0.0, size]], dtype=torch.float64)
    corners = transform_points(corners, matrix.cpu())
    low, high = corners.amin(0).round().long() - margin, corners.amax(0).round().long() + margin
    x1, y1 = (max(0, int(value)) for value in low)
    x2, y2 = min(width, int(high[0])), min(height, int(high[1]))
    return (x1, y1, max(x1, x2), max(y1, y2))


def soft_square(
    matrix: Tensor,
    size: int,
    height: int,
    width: int,
    shrink: int | None = None,
    feather: int | None = None,
    inner: Tensor | None = None,
) -> tuple[Box, Tensor]:
    """Return (box, mask (h, w) 0..1 of that box): the crop's square in the picture, eroded and blurred there.

    Distances are in pixels of the picture, so the rim is as soft for a large crop as for a small one. The defaults
    are insightface's (INSwapper.get): with s the mean side of the square in the picture, erosion by s / 10 (10 at
    least) and a blur of radius s / 20 (5 at least).

    Args:
        matrix: (2, 3) from crop to picture.
        size: side of the crop.
        height: of the picture.
        width: of the picture.
        shrink: side of the eroding square; 0 or 1 leaves the square as it is.
        feather: radius of the blur; 0 for a hard rim.
        inner: (size, size), 0..1, where in the crop the mask may be; taken into account before erosion and blur, and
            never crossed by them.
    """
    corners = transform_points(torch.tensor([[0.0, 0.0], [size, size]]).double(), matrix.cpu())
    side = math.ceil(float((corners[1] - corners[0]).norm())) + 2
    # The square fades over one pixel of the crop, which may be many of the picture.
    rim = math.ceil(side / size) + 2
    box = region_of(matrix, size, height, width, margin=(side // 20 + 6 if feather is None else feather) + rim)
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return box, torch.zeros(0, 0)
    mask = (warp(torch.ones(1, 1, size, size), _shifted(matrix, x1, y1), (y2 - y1, x2 - x1))[0, 0] > 20 / 255).float()
    mean_side = _mean_side(mask)
    shrink = max(mean_side // 10, 10) if shrink is None else shrink
    feather = max(mean_side // 20, 5) if feather is None else feather
    if inner is None:
        return box, _softened(mask, shrink, feather)
    there = warp(inner[None, None].float().cpu(), _shifted(matrix, x1, y1), (y2 - y1, x2 - x1), "border")[0, 0]
    allowed = torch.minimum(mask, there)
    return box, _softened(allowed, shrink, feather) * (allowed > 0)


def _softened(mask: Tensor, shrink: int, feather: int) -> Tensor:
    mask = erode(mask, shrink) if shrink > 1 else mask
    return gaussian_blur(mask, 2 * feather + 1) if feather > 0 else mask


def _shifted(matrix: Tensor, x: int, y: int) -> Tensor:
    """Return ``matrix`` (1, 2, 3) float64 followed by a move of the origin to (x, y)."""
    moved = matrix.cpu().double().clone()
    moved[:, 2] -= torch.tensor([x, y], dtype=torch.float64)
    return moved[None]


def _mean_side(mask: Tensor) -> int:
    rows, columns = torch.nonzero(mask.amax(1)), torch.nonzero(mask.amax(0))
    if rows.numel() == 0:
        return 0
    high, wide = int(rows.max() - rows.min()), int(columns.max() - columns.min())
    return int(math.sqrt(high * wide))


def head_mask(candidates: Tensor, labels: Sequence[str], scores: Sequence[float], threshold: float = 0.8) -> Tensor:
    """Return FACT's head mask (H, W), 0 or 1, of a human parser's candidates.

    Per label the largest candidate above ``threshold`` counts; the rest is `head_mask_of_parts`.

    Args:
        candidates: (N, H, W), 0 or 1.
        labels: "Face", "Hair" or "Human" for each; others are not read.
        scores: confidence of each, 0..1.

    Raises:
        BadMask: no candidate labelled "Human" is sure enough (the official code fails here without a reason).
    """
    best: dict[str, Tensor] = {}
    for mask, name, score in zip(candidates, labels, scores, strict=True):
        if score > threshold and (name not in best or float(mask.sum()) > float(best[name].sum())):
            best[name] = mask.float()
    if "Human" not in best:
        raise BadMask(
            "head mask",
            expected=f"a part labelled Human with a score above {threshold:g}",
            found=", ".join(f"{name} {score:.2f}" for name, score in zip(labels, scores, strict=True)) or "no part",
            cure="connect a MASK of the head, or encode the picture with its background",
        )
    nothing = torch.zeros_like(best["Human"])
    return head_mask_of_parts(best.get("Face", nothing), best.get("Hair", nothing), best["Human"])


def head_mask_of_parts(face: Tensor, hair: Tensor, human: Tensor) -> Tensor:
    """Return FACT's head mask (H, W), 0 or 1, of the parts' masks (H, W).

    Face and hair are widened by a twentieth of the face's size inside the person; the part with the largest outline
    is kept, its holes filled (FaceChain, face_adapter, get_mask_head).
    """
    size = max(int(math.sqrt(float(face.sum())) / 20), 1)
    head = dilate((hair + face).clamp(0, 1), size) * human
    binary = (head * 255).to(torch.uint8) > 127
    solid = torch.from_numpy(largest_solid(binary.cpu().numpy())).to(face.device, face.dtype)
    return (solid + face).clamp(0, 1)
