"""Plots with Pillow alone: lines with axes, ticks and a legend, and lying bars with error marks.

For the pictures of a running training and for figures in the docs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Point = tuple[float, float]
PAPER, INK, GRID = (255, 255, 255), (40, 40, 44), (205, 205, 210)
COLOURS = ((66, 110, 180), (200, 90, 60), (80, 150, 90), (150, 100, 170))
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 34, 42
TICKS = 5
# A bar and its row, the column of names and that of values.
BAR, ROW, NAMES, VALUES = 16, 26, 210, 70


@dataclass(frozen=True)
class Frame:
    """The part of the plane that a plot shows, and the pixels it is shown on.

    Attributes:
        x, y: least and largest value across and up.
        size: width and height of the picture.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int]

    def place(self, point: Point) -> Point:
        """Pixel of a point."""
        across = (point[0] - self.x[0]) / max(self.x[1] - self.x[0], 1e-12)
        up = (point[1] - self.y[0]) / max(self.y[1] - self.y[0], 1e-12)
        width, height = self.size[0] - LEFT - RIGHT, self.size[1] - TOP - BOTTOM
        return LEFT + width * across, TOP + height * (1 - up)


def line_plot(
    series: Mapping[str, Sequence[Point]],
    title: str,
    size: tuple[int, int] = (640, 400),
    across: str = "step",
    up: str = "",
    marks: bool = False,
) -> Any:
    """Lines over one pair of axes; values that are not finite are left out.

    Args:
        series: points (x, y) in order, by the name that the legend shows.
        title: above the plot.
        size: width and height in pixels.
        across, up: names of the axes.
        marks: a dot at every point.

    Returns:
        A Pillow image, RGB; axes without lines where there is nothing to show.
    """
    shown = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    points = [point for each in shown.values() for point in each] or [(0.0, 0.0), (1.0, 1.0)]
    frame = Frame(_range([x for x, _ in points], 0.05 * marks), _range([y for _, y in points], 0.05), size)
    image, pen = _page(size, title)
    _axes(pen, frame, across, up)
    for number, (name, line) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [frame.place(point) for point in line]
        if len(places) > 1:
            pen.line(places, fill=colour, width=2)
        for x, y in places if marks or len(places) == 1 else ():
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        _legend(pen, size, number, name, colour)
    return image


def bar_plot(
    values: Mapping[str, float],
    errors: Mapping[str, float | tuple[float, float]] | None = None,
    title: str = "",
    width: int = 760,
) -> Any:
    """Lying bars from zero, one below the other with their names and values, and the marks of their errors.

    Args:
        values: lengths by name.
        errors: by name, a spread to both sides or the (low, high) ends of an interval.
        title: above the plot.
        width: of the picture in pixels; its height follows from the number of bars.

    Returns:
        A Pillow image, RGB.
    """
    ends = {name: _interval(value, (errors or {}).get(name, 0.0)) for name, value in values.items()}
    low, high = _range([0.0, *values.values(), *(end for pair in ends.values() for end in pair)])
    image, pen = _page((width, TOP + ROW * len(values) + 4), title)

    def across(value: float) -> float:
        return NAMES + (width - NAMES - VALUES - RIGHT) * (value - low) / (high - low)

    for number, (name, value) in enumerate(values.items()):
        top, middle = TOP + ROW * number, TOP + ROW * number + BAR / 2
        left, right = sorted((across(0.0), across(value)))
        pen.rectangle((left, top, right, top + BAR), fill=COLOURS[number % 2])
        first, last = (across(end) for end in ends[name])
        if first != last:
            pen.line([(first, middle), (last, middle)], fill=INK, width=2)
            for x in (first, last):
                pen.line([(x, middle - 5), (x, middle + 5)], fill=INK, width=2)
        pen.text((8, top + 3), name, fill=INK)
        pen.text((width - VALUES, top + 3), f"{value:.4g}", fill=INK)
    return image


def blank_page(size: tuple[int, int]) -> tuple[Any, Any]:
    """An empty Pillow image of that width and height, and what draws on it."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, PAPER)
    return image, ImageDraw.Draw(image)


def picture_tensor(image: Any) -> Tensor:
    """A Pillow image as (1, H, W, 3), 0..1, which is the host's IMAGE."""
    plain = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(plain.tobytes()), dtype=torch.uint8)
    return pixels.view(1, plain.height, plain.width, 3).float() / 255


def tensor_picture(image: Tensor) -> Any:
    """A picture (H, W, 3), 0..1, as a Pillow image."""
    from PIL import Image

    return Image.fromarray((image.detach().cpu().clamp(0, 1) * 255).round().byte().numpy())


def stacked(images: Sequence[Any]) -> Any:
    """Pillow images one below the other, on white."""
    from PIL import Image

    page = Image.new("RGB", (max(one.width for one in images), sum(one.height for one in images)), PAPER)
    top = 0
    for one in images:
        page.paste(one.convert("RGB"), (0, top))
        top += one.height
    return page


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    rough = max(high - low, 1e-12) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _range(values: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def _interval(value: float, error: float | tuple[float, float]) -> tuple[float, float]:
    return error if isinstance(error, tuple) else (value - error, value + error)


def _axes(pen: Any, frame: Frame, across: str, up: str) -> None:
    width, height = frame.size
    left, floor = LEFT, height - BOTTOM
    for value in ticks(*frame.y):
        y = frame.place((frame.x[0], value))[1]
        pen.line([(left, y), (width - RIGHT, y)], fill=GRID)
        pen.text((6, y - 6), f"{value:.4g}", fill=INK)
    for value in ticks(*frame.x):
        x = frame.place((value, frame.y[0]))[0]
        pen.line([(x, floor), (x, floor + 4)], fill=INK)
        pen.text((x - 8, floor + 7), f"{value:.6g}", fill=INK)
    pen.line([(left, TOP), (left, floor), (width - RIGHT, floor)], fill=INK)
    pen.text((width // 2 - 3 * len(across), height - 16), across, fill=INK)
    pen.text((6, TOP - 14), up, fill=INK)


def _legend(pen: Any, size: tuple[int, int], number: int, name: str, colour: tuple[int, int, int]) -> None:
    left, top = size[0] - RIGHT - 130, TOP + 6 + 15 * number
    pen.line([(left, top + 6), (left + 18, top + 6)], fill=colour, width=3)
    pen.text((left + 24, top), name, fill=INK)


def _page(size: tuple[int, int], title: str) -> tuple[Any, Any]:
    image, pen = blank_page(size)
    pen.text((LEFT, 8), title, fill=INK)
    return image, pen
