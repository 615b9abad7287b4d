"""From identities and attributes to pictures with their truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import features, layers
from .canvas import Canvas
from .landmarks import points
from .parameters import Attributes, BadParameters, IdentityParameters
from .regions import FACE_REGIONS, HEAD_REGIONS, REGIONS

# Planes of so many pixels stay in the processor's cache; fewer would pay more for the calls than for the pixels.
PIXELS_AT_ONCE = 16 * 128 * 128
LIT = [REGIONS.index(name) for name in HEAD_REGIONS]


@dataclass(frozen=True, eq=False)
class DrawnFaces:
    """B drawn pictures and all that is true of them.

    Attributes:
        images: (B, H, W, 3) RGB, 0..1.
        regions: (B, R, H, W) how much of each pixel belongs to each of `REGIONS`; sums to 1.
        landmarks: (B, K, 2) pixels of the points that `landmarks.NAMES` names; the first five are `landmarks5`.
        identities, attributes: what they were drawn from.
    """

    images: Tensor
    regions: Tensor
    landmarks: Tensor
    identities: IdentityParameters
    attributes: Attributes

    @property
    def landmarks5(self) -> Tensor:
        """(B, 5, 2) pixels: eye centres, nose tip, mouth corners, those on the picture's left first."""
        return self.landmarks[:, :5]

    @property
    def boxes(self) -> Tensor:
        """(B, 4) ``x1 y1 x2 y2`` in pixels: around crown, chin and both sides of the head."""
        outline = self.landmarks[:, 5:9]
        return torch.cat([outline.amin(dim=1), outline.amax(dim=1)], dim=1)

    def mask(self, *names: str) -> Tensor:
        """(B, H, W) the sum of some regions, 0..1."""
        return self.regions[:, [REGIONS.index(name) for name in names]].sum(dim=1).clamp(0, 1)

    @property
    def face_mask(self) -> Tensor:
        """(B, H, W) everything inside the head's outline but hair."""
        return self.mask(*FACE_REGIONS)

    @property
    def head_mask(self) -> Tensor:
        """(B, H, W) face and hair."""
        return self.mask(*HEAD_REGIONS)


def draw(identities: IdentityParameters, attributes: Attributes, size: int = 128) -> DrawnFaces:
    """Draw B faces; the pictures of a row do not depend on the other rows.

    Args:
        identities, attributes: B rows each, or one row for all.
        size: side of the square pictures in pixels, 16 or more.

    Raises:
        BadParameters: row counts that differ, no rows, or too small a size.
    """
    identities, attributes = _paired(identities, attributes)
    if size < 16:
        raise BadParameters("drawn faces", expected="a size of 16 or more", found=str(size), cure="draw larger")
    count = len(identities)
    images = torch.empty(count, size, size, 3)
    regions = torch.empty(count, len(REGIONS), size, size)
    landmarks = []
    together = max(1, PIXELS_AT_ONCE // (size * size))
    for first in range(0, count, together):
        chosen = slice(first, first + together)
        subject = layers.Subject.of(identities.rows(chosen), attributes.rows(chosen), size)
        images[chosen] = _paint(subject, regions[chosen]).permute(0, 2, 3, 1)
        landmarks.append(points(subject.identities, subject.attributes, subject.pose))
    return DrawnFaces(images, regions, torch.cat(landmarks), identities, attributes)


def _paired(identities: IdentityParameters, attributes: Attributes) -> tuple[IdentityParameters, Attributes]:
    counts = (len(identities), len(attributes))
    if 0 in counts or (counts[0] != counts[1] and 1 not in counts):
        raise BadParameters(
            "drawn faces",
            expected="as many identities as attributes, or one of either",
            found=f"{counts[0]} and {counts[1]}",
            cure="repeat the rows of the shorter one",
        )
    rows = max(counts)
    return identities.repeated(rows // counts[0]), attributes.repeated(rows // counts[1])


def _paint(subject: layers.Subject, regions: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) of the subjects; their regions are written into (B, R, H, W)."""
    canvas = Canvas(layers.background(subject), subject.pose.scale[:, None, None])
    layers.back_hair(canvas, subject)
    layers.body(canvas, subject)
    layers.ears(canvas, subject)
    outline = layers.Outline.of(subject)
    inside = layers.head(canvas, subject, outline)
    layers.beard(canvas, subject, inside)
    features.moles(canvas, subject, inside)
    features.nose(canvas, subject, inside)
    features.mouth(canvas, subject, inside)
    features.eyes_and_brows(canvas, subject, inside)
    layers.front_hair(canvas, subject, outline)
    features.glasses(canvas, subject, inside)
    canvas.regions(regions)
    rows, columns = subject.head.box
    lit = regions[:, LIT, rows, columns].sum(dim=1)
    layers.light(canvas, subject, lit)
    return canvas.images.clamp_(0, 1)
