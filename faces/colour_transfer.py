"""Colours of a swapped crop brought to those of the face that was there, before it is pasted.

``reinhard``: mean and deviation of each channel of CIE Lab inside a mask (Reinhard et al. 2001, in Lab as is usual
today). ``wavelet``: see `faces.colour`. ``local``: differences at rising sizes (facefusion, match_frame_color), for
crops of the same layout. Neither facefusion's nor ReActor's swap does any of it, hence their pale faces.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from .colour import match_colour
from .errors import BadImage

Transfer = Literal["none", "reinhard", "wavelet", "local"]
TRANSFERS: tuple[str, ...] = get_args(Transfer)

# sRGB to XYZ (IEC 61966-2-1), divided by the white point D65.
_TO_XYZ = (
    (0.4124564 / 0.950456, 0.3575761 / 0.950456, 0.1804375 / 0.950456),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.088754, 0.1191920 / 1.088754, 0.9503041 / 1.088754),
)
_TO_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))
_BEND = 6 / 29
_LEAST_DEVIATION = 1e-3
_FIRST_SIZE, _STEPS = 16, 3


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIE Lab (N, 3, H, W), L 0..100, of sRGB (N, 3, H, W), 0..1, under D65."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = _mixed(linear, _TO_XYZ)
    bent = torch.where(xyz > _BEND**3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * _BEND**2) + 4 / 29)
    return _mixed(bent, _TO_LAB) - images.new_tensor([16.0, 0.0, 0.0])[:, None, None]


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB (N, 3, H, W), clipped to 0..1, of CIE Lab (N, 3, H, W)."""
    shifted = lab + lab.new_tensor([16.0, 0.0, 0.0])[:, None, None]
    bent = _mixed(shifted, _inverse(_TO_LAB))
    xyz = torch.where(bent > _BEND, bent**3, 3 * _BEND**2 * (bent - 4 / 29))
    linear = _mixed(xyz, _inverse(_TO_XYZ)).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)


def reinhard(crops: Tensor, reference: Tensor, masks: Tensor | None = None) -> Tensor:
    """Return crops (N, 3, H, W), 0..1, with mean and deviation in Lab of the reference (N, 3, H, W).

    Args:
        crops: to be changed; all of a crop changes, not only what the mask shows.
        reference: whose colours are taken.
        masks: (N, H, W), 0..1, the pixels of both that are measured; all where None, and where a mask is empty.
    """
    weights = torch.ones_like(crops[:, :1]) if masks is None else masks[:, None].to(crops)
    weights = torch.where(weights.sum((2, 3), keepdim=True) > 1, weights, torch.ones_like(weights))
    own, wanted = rgb_to_lab(crops), rgb_to_lab(reference)
    mean, deviation = _statistics(own, weights)
    wanted_mean, wanted_deviation = _statistics(wanted, weights)
    return lab_to_rgb((own - mean) / deviation.clamp(min=_LEAST_DEVIATION) * wanted_deviation + wanted_mean)


def working_sizes(side: int) -> list[int]:
    """Sizes at which `local` measures differences: three, from 16 towards the picture's own side."""
    return [int(_FIRST_SIZE + (side - _FIRST_SIZE) * step / _STEPS) for step in range(_STEPS)]


def equalised(reference: Tensor, crops: Tensor, size: int) -> Tensor:
    """Return crops (N, 3, H, W) plus what the reference differs from them at ``size`` x ``size``, clipped to 0..1."""
    height, width = crops.shape[-2:]
    difference = shrunk(reference, size) - shrunk(crops, size)
    wide = functional.interpolate(difference, (height, width), mode="bicubic", align_corners=False)
    return (crops + wide).clamp(0, 1)


def local(crops: Tensor, reference: Tensor) -> Tensor:
    """Return crops (N, 3, S, S) with the reference's colours, coarse differences first."""
    matched = reference
    for size in working_sizes(crops.shape[-2]):
        matched = equalised(matched, crops, max(size, 1))
    return matched


def transfer(
    crops: Tensor, reference: Tensor, method: Transfer = "reinhard", strength: float = 1.0, masks: Tensor | None = None
) -> Tensor:
    """Return crops (N, 3, S, S), 0..1, in the colours of the crops (N, 3, S, S) that were there.

    Args:
        crops: swapped.
        reference: the original crops in the same alignment.
        method: one of `TRANSFERS`.
        strength: 0 leaves the crops as they are.
        masks: (N, S, S), 0..1, what ``reinhard`` measures, such as the skin.

    Raises:
        BadImage: no such method.
    """
    if method not in TRANSFERS:
        raise BadImage(
            "colour transfer", expected=" or ".join(TRANSFERS), found=repr(method), cure="choose one of the list"
        )
    if method == "none" or strength == 0 or not len(crops):
        return crops
    if method == "wavelet":
        return match_colour(crops.movedim(1, -1), reference.movedim(1, -1), "wavelet", strength).movedim(-1, 1)
    matched = reinhard(crops, reference, masks) if method == "reinhard" else local(crops, reference)
    return matched if strength == 1 else crops.lerp(matched, strength)


def shrunk(images: Tensor, size: int) -> Tensor:
    """Return pictures (N, C, H, W) at ``size`` x ``size``, every new pixel the mean of the area it covers."""
    down, across = (_area_weights(side, size).to(images) for side in images.shape[-2:])
    return down @ images @ across.T


def _area_weights(length: int, size: int) -> Tensor:
    """(size, length) shares of each old pixel in each new one; fractional borders count by their part."""
    edges = torch.arange(size + 1, dtype=torch.float64) * (length / size)
    pixel = torch.arange(length, dtype=torch.float64)
    low = torch.maximum(edges[:-1, None], pixel)
    high = torch.minimum(edges[1:, None], pixel + 1)
    covered = (high - low).clamp(min=0)
    return (covered / covered.sum(1, keepdim=True)).float()


def _statistics(lab: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation (N, 3, 1, 1)."""
    total = weights.sum((2, 3), keepdim=True)
    mean = (lab * weights).sum((2, 3), keepdim=True) / total
    variance = ((lab - mean).square() * weights).sum((2, 3), keepdim=True) / total
    return mean, variance.sqrt()


def _mixed(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("oc,nchw->nohw", planes.new_tensor(matrix), planes)


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    rows = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)).tolist()
    return tuple(tuple(float(value) for value in row) for row in rows)
