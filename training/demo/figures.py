"""Plots of measured models, and sheets of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..plot import INK, bar_plot, blank_page, line_plot, tensor_picture

Models = Mapping[str, Mapping[str, Mapping[str, float]]]


def sheet(path: Path, rows: Sequence[Tensor], names: Sequence[str], columns: int = 8, enlarge: int = 2) -> None:
    """Rows of pictures (N, H, W, 3), each with its name to the left."""
    size = 100 + columns * rows[0].shape[2] * enlarge, len(rows) * (rows[0].shape[1] * enlarge + 4)
    image, pen = blank_page(size)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        large = functional.interpolate(row[:columns].movedim(-1, 1), scale_factor=enlarge, mode="bicubic").clamp(0, 1)
        strip = torch.cat(list(large.movedim(1, -1)), dim=1)
        top = number * (large.shape[2] + 4)
        image.paste(tensor_picture(strip), (100, top))
        pen.text((6, top + large.shape[2] // 2 - 6), name, fill=INK)
    _save(image, path)


def bars(path: Path, models: Models, figure: str) -> None:
    """One bar for each model; a line shows the spread over seeds."""
    values = {name: found[figure]["mean"] for name, found in models.items()}
    spreads = {name: found[figure]["spread"] for name, found in models.items()}
    _save(bar_plot(values, spreads, figure.replace("_", " ")), path)


def curves(path: Path, models: Models) -> None:
    """Change outside the face over identity distance, one line for each adapter, one point for each strength."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, found in models.items():
        adapter, _, strength = name.partition("@")
        if strength:
            groups.setdefault(adapter, []).append((found["identity_distance"]["mean"], found["outside_change"]["mean"]))
    if not groups:
        return
    lines = {name: sorted(group) for name, group in groups.items()}
    across = "identity distance to the reference"
    _save(line_plot(lines, "change outside the face", (640, 420), across, marks=True), path)


def _save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
