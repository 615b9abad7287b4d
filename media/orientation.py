"""How a player turns stored pictures: the display matrix of phones' clips, applied and undone."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# 16.16 fixed point, as ISO base media files store it.
_ONE = 1 << 16


@dataclass(frozen=True)
class Orientation:
    """A turn by quarters with or without a mirror image.

    Attributes:
        matrix: the nine numbers of the display matrix, None where a clip has none.
        transposed: rows become columns, first of all.
        mirrored: left becomes right, after that.
        upended: top becomes bottom, after that.
        exact: False where the matrix turns by something else than quarters; frames are then left as stored.
    """

    matrix: tuple[int, ...] | None = None
    transposed: bool = False
    mirrored: bool = False
    upended: bool = False
    exact: bool = True

    @property
    def plain(self) -> bool:
        """Whether stored pictures are seen as they are."""
        return not (self.transposed or self.mirrored or self.upended)


def orientation_of(matrix: Sequence[int] | None) -> Orientation:
    """What a display matrix says.

    With x' = a x + c y and y' = b x + d y (libavutil, display.h) the numbers are a, b, u, c, d, v, x, y, w.
    """
    if matrix is None:
        return Orientation()
    numbers = tuple(int(one) for one in matrix)
    a, b, c, d = (round(numbers[place] / _ONE, 3) for place in (0, 1, 3, 4))
    if abs(a) == 1 and abs(d) == 1 and b == c == 0:
        return Orientation(numbers, mirrored=a < 0, upended=d < 0)
    if abs(b) == 1 and abs(c) == 1 and a == d == 0:
        return Orientation(numbers, True, mirrored=c < 0, upended=b < 0)
    return Orientation(numbers, exact=False)


def matrix_of(data: bytes) -> tuple[int, ...] | None:
    """The nine numbers of side data in the machine's byte order."""
    return struct.unpack("=9i", data[:36]) if len(data) >= 36 else None


def as_seen(frames: Tensor, orientation: Orientation) -> Tensor:
    """Return stored frames (B, H, W, C) as a player shows them."""
    turned = frames.transpose(1, 2) if orientation.transposed else frames
    axes = _axes(orientation)
    return turned.flip(axes) if axes else turned.contiguous()


def as_stored(frames: Tensor, orientation: Orientation) -> Tensor:
    """Return frames (B, H, W, C) as seen in the way they are stored; undoes `as_seen`."""
    axes = _axes(orientation)
    turned = frames.flip(axes) if axes else frames
    return (turned.transpose(1, 2) if orientation.transposed else turned).contiguous()


def _axes(orientation: Orientation) -> list[int]:
    return [axis for axis, wanted in ((2, orientation.mirrored), (1, orientation.upended)) if wanted]
