"""Limbs, convex polygons and dots as OpenCV draws them, to the pixel, without OpenCV.

The rules of ``ellipse2Poly``, ``fillConvexPoly`` and ``circle`` (integer corners, 16-bit fixed-point edges, the integer
circle of Bresenham). Only a polygon that leaves the picture may differ from OpenCV by single pixels at the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Colour = tuple[int, int, int]
Point = tuple[int, int]

_HALF = 1 << 15


def limb(start: tuple[float, float], end: tuple[float, float], half_width: int) -> list[Point]:
    """Corners of the ellipse between two points, one for each degree, equal neighbours once.

    Args:
        start, end: the ends of its long axis, in pixels.
        half_width: its short half axis.
    """
    (x0, y0), (x1, y1) = start, end
    centre = (int((x0 + x1) / 2), int((y0 + y1) / 2))
    half_length = int(math.hypot(x0 - x1, y0 - y1) / 2)
    degrees = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
    cosine, sine = _cosine(degrees), _sine(degrees)
    corners: list[Point] = []
    for angle in range(361):
        x, y = half_length * _cosine(angle), half_width * _sine(angle)
        corner = (round(centre[0] + x * cosine - y * sine), round(centre[1] + x * sine + y * cosine))
        if not corners or corner != corners[-1]:
            corners.append(corner)
    return corners if len(corners) > 1 else [centre, centre]


def _sine(degrees: int) -> float:
    """The sine as OpenCV tabulates it: seven decimals, in float32. It decides between neighbouring pixels."""
    return float(torch.tensor(round(math.sin(math.radians(degrees)), 7), dtype=torch.float32))


def _cosine(degrees: int) -> float:
    return _sine(degrees + 90)


def fill_convex(canvas: Tensor, corners: Sequence[Point], colour: Colour) -> None:
    """Paint a convex polygon into a canvas (H, W, 3) uint8: its outline, and every row between its two edges."""
    height, width, _ = canvas.shape
    paint = torch.tensor(colour, dtype=torch.uint8)
    for start, end in zip((corners[-1], *corners[:-1]), corners, strict=True):
        for x, y in _line(start, end):
            if 0 <= x < width and 0 <= y < height:
                canvas[y, x] = paint
    for y, left, right in _spans(corners):
        if 0 <= y < height:
            canvas[y, max(0, left) : max(0, right + 1)] = paint


def _line(start: Point, end: Point) -> list[Point]:
    """Pixels of a line of 8-connected steps, drawn from its left end; a tie stays on the side it comes from."""
    (x0, y0), (x1, y1) = sorted((start, end)) if start[0] != end[0] else (start, end)
    dx, dy = x1 - x0, abs(y1 - y0)
    down = 1 if y1 >= y0 else -1
    if dx >= dy:
        return [(x0 + k, y0 + down * _nearest_below(dy * k, dx)) for k in range(dx + 1)]
    return [(x0 + _nearest_below(dx * k, dy), y0 + down * k) for k in range(dy + 1)]


def _nearest_below(numerator: int, denominator: int) -> int:
    """``numerator / denominator`` to the nearest whole number, halves down."""
    return 0 if denominator == 0 else -((denominator - 2 * numerator) // (2 * denominator))


def _spans(corners: Sequence[Point]) -> list[tuple[int, int, int]]:
    """(y, first x, last x) of the rows between the two chains of edges, in 16-bit fixed point."""
    top = min(range(len(corners)), key=lambda number: corners[number][1])
    bottom = max(y for _, y in corners)
    turned = [*corners[top:], *corners[:top]]
    chains = [_chain(turned, bottom), _chain([turned[0], *reversed(turned[1:])], bottom)]
    rows: list[tuple[int, int, int]] = []
    for number, (first, second) in enumerate(zip(*chains, strict=True)):
        left, right = sorted((first, second))
        rows.append((turned[0][1] + number, (left + _HALF) >> 16, (right + _HALF) >> 16))
    return rows


def _chain(corners: Sequence[Point], bottom: int) -> list[int]:
    """x in fixed point of each row from the first corner down to ``bottom``."""
    (x, y), xs = corners[0], []
    for x1, y1 in corners[1:]:
        if y1 > y:
            rows = y1 - y
            step = _divide(((x1 - x) << 17) + rows, 2 * rows)
            xs += [(x << 16) + step * k for k in range(rows)]
            y = y1
        x = x1
        if y == bottom:
            break
    return [*xs, x << 16]


def _divide(numerator: int, denominator: int) -> int:
    """Whole-number division towards zero, as C divides."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient


def fill_circle(canvas: Tensor, centre: Point, radius: int, colour: Colour) -> None:
    """Paint a filled circle into a canvas (H, W, 3) uint8; what lies outside is left away."""
    height, width, _ = canvas.shape
    paint = torch.tensor(colour, dtype=torch.uint8)
    for offset, half in _circle(radius).items():
        y = centre[1] + offset
        if 0 <= y < height:
            canvas[y, max(0, centre[0] - half) : max(0, min(width, centre[0] + half + 1))] = paint


def _circle(radius: int) -> dict[int, int]:
    """Half width of each row of a filled circle, by the midpoint rule."""
    halves: dict[int, int] = {}
    x, y, error = radius, 0, 0
    while x >= y:
        for row, half in ((y, x), (x, y)):
            for signed in (row, -row):
                halves[signed] = max(half, halves.get(signed, 0))
        y += 1
        error += 2 * y - 1
        if error > 0:
            error -= 2 * x - 1
            x -= 1
    return halves
