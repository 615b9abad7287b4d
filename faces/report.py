"""The faces of a batch as a table in plain text."""

from __future__ import annotations

from .types import FaceBatch, Faces


def faces_table(batch: FaceBatch) -> str:
    """One line for each face: picture and number counted from 0, score, box and size in pixels; notes at the end."""
    height, width = batch.image_size
    lines = [f"{sum(batch.counts)} faces in {len(batch)} images of {width}x{height} by {batch.detector}"]
    for number, faces in enumerate(batch.images):
        lines += _rows(number, faces) or [f"image {number}: no face"]
    return "\n".join([*lines, *(f"note: {note}" for note in batch.notes)])


def _rows(number: int, faces: Faces) -> list[str]:
    rows = []
    for index, (box, score) in enumerate(zip(faces.boxes.tolist(), faces.scores.tolist(), strict=True)):
        x1, y1, x2, y2 = box
        corners = f"({x1:.0f}, {y1:.0f}) - ({x2:.0f}, {y2:.0f})"
        rows.append(f"image {number} face {index}: score {score:.3f}, box {corners}, {x2 - x1:.0f}x{y2 - y1:.0f} px")
    return rows
