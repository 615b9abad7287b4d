"""Draws the picture of a workflow that has no photograph of its own: ``python tools/dev/graph_picture.py``.

Each ``workflows/<name>.json`` without a ``workflows/<name>.jpg`` gets one: nodes as titled boxes, links as curves in
the colours of their types, laid out as on the canvas. Names given as arguments are drawn anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
WIDTH, MARGIN, SMOOTH = 1600, 40, 2
LARGEST_BYTES = 100_000
BACKGROUND, BOX, TITLE, EDGE, TEXT, FAINT = "#1f2126", "#33363d", "#41454e", "#5a5f6b", "#f0f0f0", "#a8adb8"
OURS = "#2f4f6b"
COLOURS = {
    "MODEL": "#b39ddb",
    "CLIP": "#ffd54f",
    "VAE": "#ff6e6e",
    "CONDITIONING": "#ffa931",
    "LATENT": "#ff9cf9",
    "IMAGE": "#64b5f6",
    "MASK": "#81c784",
    "CLIP_VISION": "#a8dadc",
    "LIKENESS_IDENTITY": "#f48fb1",
    "LIKENESS_FACES": "#4dd0c4",
    "LIKENESS_ADAPTER": "#dce775",
    "LIKENESS_ENCODER": "#bcaaa4",
    "LIKENESS_DETECTOR": "#90a4ae",
}
OTHER_COLOUR = "#9e9e9e"
TITLE_HEIGHT, LINE = 34, 20

Graph = Mapping[str, Any]
Point = tuple[float, float]


class Drawing:
    """A graph on a sheet: positions of the canvas, scaled to ``WIDTH`` pixels."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = {node["id"]: node for node in graph["nodes"]}
        self.links = graph["links"]
        right = max(node["pos"][0] + node["size"][0] for node in self.nodes.values())
        bottom = max(node["pos"][1] + node["size"][1] for node in self.nodes.values())
        left = min(node["pos"][0] for node in self.nodes.values())
        top = min(node["pos"][1] for node in self.nodes.values())
        self.scale = SMOOTH * (WIDTH - 2 * MARGIN) / (right - left)
        self.origin = left - MARGIN * SMOOTH / self.scale, top - MARGIN * SMOOTH / self.scale
        size = SMOOTH * WIDTH, round((bottom - top) * self.scale) + 2 * MARGIN * SMOOTH
        self.sheet = Image.new("RGB", size, BACKGROUND)
        self.draw = ImageDraw.Draw(self.sheet)

    def at(self, x: float, y: float) -> Point:
        """Pixel of a place on the canvas."""
        return (x - self.origin[0]) * self.scale, (y - self.origin[1]) * self.scale

    def font(self, height: float) -> Any:
        """Pillow's own font, in units of the canvas."""
        return ImageFont.load_default(max(6.0, height * self.scale))

    def picture(self) -> Image.Image:
        """Boxes, then links over them, then the names on the boxes."""
        for node in self.nodes.values():
            self._box(node)
        for link in self.links:
            self._link(link)
        for node in self.nodes.values():
            self._words(node)
        return self.sheet.resize((WIDTH, self.sheet.height // SMOOTH), Image.Resampling.LANCZOS)

    def _box(self, node: Graph) -> None:
        (x, y), (width, height) = node["pos"], node["size"]
        corners, radius = (*self.at(x, y), *self.at(x + width, y + height)), 8 * self.scale
        self.draw.rounded_rectangle(corners, radius, BOX, EDGE, SMOOTH)
        bar = OURS if node["type"].startswith("Likeness") else TITLE
        self.draw.rounded_rectangle((*corners[:2], *self.at(x + width, y + TITLE_HEIGHT)), radius, bar, EDGE, SMOOTH)

    def _link(self, link: Sequence[Any]) -> None:
        _, source, slot, target, position, kind = link
        (x0, y0), (x1, y1) = self._outlet(self.nodes[source], slot), self._inlet(self.nodes[target], position)
        reach = max(40.0, abs(x1 - x0) / 2)
        steps = [step / 40 for step in range(41)]
        curve = [
            self.at(
                (1 - t) ** 3 * x0 + 3 * (1 - t) ** 2 * t * (x0 + reach) + 3 * (1 - t) * t**2 * (x1 - reach) + t**3 * x1,
                (1 - t) ** 3 * y0 + 3 * (1 - t) ** 2 * t * y0 + 3 * (1 - t) * t**2 * y1 + t**3 * y1,
            )
            for t in steps
        ]
        colour = COLOURS.get(kind, OTHER_COLOUR)
        self.draw.line(curve, colour, round(3 * self.scale), "curve")
        for x, y in (curve[0], curve[-1]):
            dot = 5 * self.scale
            self.draw.ellipse((x - dot, y - dot, x + dot, y + dot), colour)

    def _words(self, node: Graph) -> None:
        x, y = node["pos"]
        room = (node["size"][0] - 20) * self.scale
        self._text(self.at(x + 10, y + TITLE_HEIGHT / 2), node["title"], self.font(19), TEXT, room, "lm")
        for row, socket in enumerate(node["inputs"]):
            place = self.at(x + 12, y + TITLE_HEIGHT + LINE * (row + 0.6))
            self._text(place, socket["name"], self.font(13), FAINT, room / 2, "lm")
        for row, socket in enumerate(node["outputs"]):
            place = self.at(x + node["size"][0] - 12, y + TITLE_HEIGHT + LINE * (row + 0.6))
            self._text(place, socket["name"], self.font(13), FAINT, room / 2, "rm")

    def _text(self, place: Point, text: str, font: Any, colour: str, room: float, anchor: str) -> None:
        while len(text) > 4 and self.draw.textlength(text, font) > room:
            text = text.rstrip("…")[:-1] + "…"
        self.draw.text(place, text, colour, font, anchor)

    def _outlet(self, node: Graph, slot: int) -> Point:
        return node["pos"][0] + node["size"][0], node["pos"][1] + TITLE_HEIGHT + LINE * (slot + 0.6)

    def _inlet(self, node: Graph, position: int) -> Point:
        return node["pos"][0], node["pos"][1] + TITLE_HEIGHT + LINE * (position + 0.6)


def as_jpeg(picture: Image.Image) -> bytes:
    """The picture in the best quality that keeps it below ``LARGEST_BYTES``.

    Raises:
        SystemExit: it stays larger.
    """
    for quality in range(90, 30, -10):
        target = BytesIO()
        picture.save(target, "JPEG", quality=quality, optimize=True)
        if target.tell() <= LARGEST_BYTES:
            return target.getvalue()
    raise SystemExit(f"the picture stays above {LARGEST_BYTES} bytes")


def main(arguments: Sequence[str]) -> int:
    """Draw every workflow that has no picture, or the named ones."""
    for path in sorted(WORKFLOWS.glob("*.json")):
        target = path.with_suffix(".jpg")
        if path.stem in arguments or not target.exists():
            graph = json.loads(path.read_text(encoding="utf-8"))
            target.write_bytes(as_jpeg(Drawing(graph).picture()))
            print(f"{target.name}: {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
