"""Masks of aligned crops that say which pixels of a swap are taken: occlusion, regions, areas, borders.

After facefusion (face_masker.py) and facexlib's restoration helper. All are 0..1 in pixels of the crop; several are
joined by their minimum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import BadMask
from .filters import float_kernel_size, gaussian_blur
from .masks import as_mask, box_mask, resize

# Indices of the 68 landmarks whose convex hull is an area.
AREAS: dict[str, tuple[int, ...]] = {
    "upper-face": (0, 1, 2, *range(31, 36), 14, 15, 16, *range(17, 27)),
    "lower-face": (*range(3, 14), *range(31, 36)),
    "mouth": tuple(range(48, 68)),
}
# Classes of the 19-class parsing networks (CelebAMask order of BiSeNet).
REGIONS: dict[str, tuple[int, ...]] = {
    "skin": (1,),
    "eyebrows": (2, 3),
    "eyes": (4, 5),
    "glasses": (6,),
    "nose": (10,),
    "mouth": (11,),
    "lips": (12, 13),
}
# What facexlib keeps of the original picture: background, necklace, cloth, hair, hat.
KEPT_BY_RESTORERS = (0, 14, 16, 17, 18)
_SIGMA = 5.0


def pulled_in(masks: Tensor) -> Tensor:
    """Return masks (..., H, W) whose rim is soft and lies inside of what they were, so that no halo is taken along."""
    soft = gaussian_blur(masks, float_kernel_size(_SIGMA), _SIGMA)
    return (soft.clamp(0.5, 1) - 0.5) * 2


def occlusion_mask(visible: Tensor, size: int) -> Tensor:
    """Return masks (N, size, size) of what an occlusion network says of the original crops.

    Args:
        visible: (N, h, w), 1 where the face is seen; clipped to 0..1.
        size: side of the crops.
    """
    return pulled_in(resize(visible.float().clamp(0, 1), size, size))


def region_mask(labels: Tensor, wanted: Sequence[int], size: int) -> Tensor:
    """Return masks (N, size, size) of the classes ``wanted`` in a parser's map (N, h, w) of the swapped crops."""
    chosen = torch.isin(labels, torch.as_tensor(list(wanted), dtype=labels.dtype, device=labels.device))
    return pulled_in(resize(chosen.float(), size, size))


def area_mask(landmarks68: Tensor, areas: Sequence[str], size: int) -> Tensor:
    """Return the mask (size, size) of the convex hull of areas' landmarks.

    Args:
        landmarks68: (68, 2) pixels of the crop; fractions are cut off.
        areas: names of `AREAS`.
        size: side of the crop.
    """
    chosen = [index for area in areas for index in AREAS[area]]
    return pulled_in(hull_mask(landmarks68[chosen].trunc().long(), size))


def hull_mask(points: Tensor, size: int) -> Tensor:
    """Return the mask (size, size), 0 or 1, of the convex hull of whole-numbered points (P, 2), its border included."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    inside = torch.ones(size, size, dtype=torch.bool)
    hull = convex_hull([(int(a), int(b)) for a, b in points.tolist()])
    for (ax, ay), (bx, by) in zip(hull, [*hull[1:], hull[0]], strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
    low, high = points.amin(0), points.amax(0)
    return (inside & (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])).float()


def parse_mask(labels: Tensor, size: int = 512, kept: Sequence[int] = KEPT_BY_RESTORERS) -> Tensor:
    """Return facexlib's masks (N, size, size) of a parser's map (N, size, size): all but the classes ``kept``.

    Blurred twice, with a black border of 10 pixels of 512.
    """
    hidden = torch.isin(labels, torch.as_tensor(list(kept), dtype=labels.dtype, device=labels.device))
    mask = gaussian_blur(gaussian_blur((~hidden).float(), 101, 11.0), 101, 11.0)
    border = max(1, 10 * size // 512)
    rim = torch.zeros_like(mask)
    rim[..., border : size - border, border : size - border] = 1
    return mask * rim


def ellipse_mask(size: int) -> Tensor:
    """Return the soft ellipse (size, size) that pack users know of HyperSwap: 0.35 and 0.40 of the side."""
    place = torch.arange(size, dtype=torch.float64) - size // 2
    across, down = int(size * 0.35) + 0.5, int(size * 0.40) + 0.5
    inside = (place[None] / across).square() + (place[:, None] / down).square() <= 1
    return gaussian_blur(inside.float(), 15)


def joined_mask(size: int, count: int, masks: Sequence[Tensor | None], box: Tensor | None = None) -> Tensor:
    """Return the minimum (N, size, size) of masks for ``count`` crops.

    Args:
        size: side of the crops.
        count: N.
        masks: each (H, W), (1, H, W) or (N, H, W), stretched to the crops, or None.
        box: (size, size), for example `faces.masks.box_mask`.

    Raises:
        BadMask: a mask of another shape or number.
    """
    result = torch.ones(count, size, size) if box is None else box.expand(count, -1, -1).clone()
    for mask in masks:
        if mask is not None:
            result = torch.minimum(result, as_mask(mask.cpu(), count, size, size, "mask of the crops", "crop"))
    return result


def padded_box(size: int, padding: tuple[float, float, float, float], blur: float = 0.0) -> Tensor | None:
    """Return the box mask (size, size) cut by percent at the top, right, bottom and left; None where nothing is cut.

    Raises:
        BadMask: nothing is left.
    """
    if blur <= 0 and not any(padding):
        return None
    mask = box_mask(size, blur, padding)
    if not bool(mask.any()):
        raise BadMask(
            "padding of the face",
            expected="less than 100 percent together from opposite sides",
            found=", ".join(f"{one:g}" for one in padding),
            cure="lower top or bottom, or right or left",
        )
    return mask


def convex_hull(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Corners of the convex hull, in the order in which x then y turn (Andrew's monotone chain)."""
    ordered = sorted(set(points))
    return [*_chain(ordered)[:-1], *_chain(ordered[::-1])[:-1]] if len(ordered) > 1 else ordered


def _chain(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2], chain[-1]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
