"""Plots and sheets of pictures with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

INK, GRID, COLOURS = (40, 40, 44), (205, 205, 210), ((66, 110, 180), (200, 90, 60), (80, 150, 90), (150, 100, 170))
Models = Mapping[str, Mapping[str, Mapping[str, float]]]


def sheet(path: Path, rows: Sequence[Tensor], names: Sequence[str], columns: int = 8, enlarge: int = 2) -> None:
    """Rows of pictures (N, H, W, 3), each with its name to the left."""
    image, pen = _page(100 + columns * rows[0].shape[2] * enlarge, len(rows) * (rows[0].shape[1] * enlarge + 4))
    from PIL import Image

    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        large = functional.interpolate(row[:columns].movedim(-1, 1), scale_factor=enlarge, mode="bicubic").clamp(0, 1)
        strip = torch.cat(list(large.movedim(1, -1)), dim=1)
        top = number * (large.shape[2] + 4)
        image.paste(Image.fromarray((strip * 255).round().byte().numpy()), (100, top))
        pen.text((6, top + large.shape[2] // 2 - 6), name, fill=INK)
    _save(image, path)


def bars(path: Path, models: Models, figure: str) -> None:
    """One bar for each model; a line shows the spread over seeds."""
    image, pen = _page(760, 40 + 26 * len(models))
    most = max(found[figure]["mean"] + found[figure]["spread"] for found in models.values()) or 1.0
    pen.text((8, 10), figure.replace("_", " "), fill=INK)
    for number, (name, found) in enumerate(models.items()):
        top, reach = 36 + 26 * number, 460 / most
        value, spread = found[figure]["mean"], found[figure]["spread"]
        pen.text((8, top + 3), name, fill=INK)
        pen.rectangle((210, top, 210 + value * reach, top + 16), fill=COLOURS[number % 2])
        pen.line((210 + (value - spread) * reach, top + 8, 210 + (value + spread) * reach, top + 8), fill=INK, width=2)
        pen.text((690, top + 3), f"{value:.3f}", fill=INK)
    _save(image, path)


def curves(path: Path, models: Models) -> None:
    """Change outside the face over identity distance, one line for each adapter, one point for each strength."""
    image, pen = _page(640, 420)
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, found in models.items():
        adapter, _, strength = name.partition("@")
        if strength:
            groups.setdefault(adapter, []).append((found["identity_distance"]["mean"], found["outside_change"]["mean"]))
    if not groups:
        return
    points = [point for group in groups.values() for point in group]
    frame = (min(x for x, _ in points) * 0.95, max(x for x, _ in points) * 1.05, 0.0, max(y for _, y in points) * 1.1)
    _axes(pen, frame)
    for number, (name, group) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [_place(frame, point) for point in sorted(group)]
        pen.line(places, fill=colour, width=2)
        for x, y in places:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        pen.text((430, 20 + 16 * number), name, fill=colour)
    _save(image, path)


def _axes(pen: Any, frame: tuple[float, float, float, float]) -> None:
    pen.line([(60, 20), (60, 370), (610, 370)], fill=INK)
    for part in range(5):
        x = frame[0] + (frame[1] - frame[0]) * part / 4
        y = frame[2] + (frame[3] - frame[2]) * part / 4
        left, top = _place(frame, (x, y))
        pen.text((left - 14, 376), f"{x:.2f}", fill=INK)
        pen.line([(60, top), (610, top)], fill=GRID)
        pen.text((12, top - 6), f"{y:.3f}", fill=INK)
    pen.text((230, 398), "identity distance to the reference", fill=INK)
    pen.text((64, 4), "change outside the face", fill=INK)


def _place(frame: tuple[float, float, float, float], point: tuple[float, float]) -> tuple[float, float]:
    x = 60 + 550 * (point[0] - frame[0]) / max(frame[1] - frame[0], 1e-9)
    return x, 370 - 350 * (point[1] - frame[2]) / max(frame[3] - frame[2], 1e-9)


def _page(width: int, height: int) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), (255, 255, 255))
    return image, ImageDraw.Draw(image)


def _save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
