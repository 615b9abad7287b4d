"""From identities and attributes to pictures with their truth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import Pose
from .landmarks import points
from .parameters import Attributes, BadParameters, IdentityParameters
from .people import People
from .plan import Plan
from .regions import FACE_REGIONS, HEAD_REGIONS, REGIONS

# Planes of so many pixels mostly stay in the processor's cache; fewer would pay more for the calls than for the pixels.
PIXELS_AT_ONCE = 16 * 128 * 128
LARGEST_SIZE = 4096
# Bytes; the C library keeps no larger ones.
LARGE_BLOCK = 32_000_000


@dataclass(frozen=True, eq=False)
class DrawnFaces:
    """B drawn pictures and all that is true of them.

    Attributes:
        images: (B, H, W, 3) RGB, 0..1; stored channel by channel, as networks take them.
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
        size: side of the square pictures in pixels, 16 to 4096.

    Raises:
        BadParameters: row counts that differ, no rows, or a size that is too small or large.
    """
    identities, attributes = _paired(identities, attributes)
    if not 16 <= size <= LARGEST_SIZE:
        raise BadParameters(
            "drawn faces",
            expected=f"a size of 16 to {LARGEST_SIZE}",
            found=str(size),
            cure="choose one between them",
        )
    _keep_freed_memory()
    plan, count = Plan(People.of(identities, attributes, size)), len(identities)
    images = torch.empty(count, 3, size, size)
    regions = torch.empty(count, len(REGIONS), size, size)
    together = max(1, PIXELS_AT_ONCE // (size * size))
    for first in range(0, count, together):
        chosen = slice(first, first + together)
        some_images, some_regions = images[chosen], regions[chosen]
        with torch.inference_mode():
            plan.paint(chosen, some_images, some_regions)
    landmarks = points(identities, attributes, Pose.of(identities, attributes, size))
    return DrawnFaces(images.permute(0, 2, 3, 1), regions, landmarks, identities, attributes)


def _keep_freed_memory() -> None:
    """Let the allocator keep what is freed while faces are drawn.

    The GNU C library gives larger blocks back to the system, and takes them again page by page, until a block of this
    size has been freed once; that takes as long as the drawing. Elsewhere this does nothing.
    """
    torch.UntypedStorage(LARGE_BLOCK)


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
