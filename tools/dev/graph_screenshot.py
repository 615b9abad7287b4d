"""Photographs the shipped graphs in ComfyUI's own page: ``python tools/dev/graph_screenshot.py [NAME...]``.

Each ``workflows/<name>.json`` (all of them, or those named) is opened in Debian's Chromium and its canvas is kept as
``workflows/<name>.jpg``. Set COMFYUI_PATH and COMFYUI_PYTHON to a newer ComfyUI, so that every node of every graph
exists.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tools")]

from pack import register  # noqa: E402  (the paths are set above)

register()

from browser_page import ComfyPage, launch  # noqa: E402
from host_process import ComfyProcess  # noqa: E402

WORKFLOWS = ROOT / "workflows"
LARGEST_WIDTH, MARGIN, LARGEST_BYTES = 2000, 40, 100_000
# The page's own bars: at the left, above, and what hangs at its lower edge.
LEFT, ABOVE, BELOW = 70, 84, 330
# Nodes grow when their widgets and pictures are there, so the sheet is measured in the page.
FIT = """() => {
    const boxes = app.graph._nodes.map((node) => node.getBounding());
    const left = Math.min(...boxes.map((box) => box[0])), top = Math.min(...boxes.map((box) => box[1]));
    const right = Math.max(...boxes.map((box) => box[0] + box[2]));
    const bottom = Math.max(...boxes.map((box) => box[1] + box[3]));
    return [left, top, Math.ceil(right - left), Math.ceil(bottom - top)];
}"""
PLACE = """([left, top, x, y]) => {
    const sheet = app.canvas.canvas.getBoundingClientRect();
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset[0] = x - sheet.left - left;
    app.canvas.ds.offset[1] = y - sheet.top - top;
    app.canvas.draw(true, true);
}"""


def main(names: Sequence[str]) -> int:
    """Photograph the graphs; return the exit code."""
    chosen = list(names) or sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, ComfyProcess(Path(folder) / "host") as host:
        _grey_pictures(host.base / "input")
        with sync_playwright() as playwright:
            browser = launch(playwright)
            page = ComfyPage(browser, host.url)
            for name in chosen:
                graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
                missing = photograph(page, graph, WORKFLOWS / f"{name}.jpg")
                print(f"{name}: {f'without {missing}, left as it was' if missing else 'photographed'}")
            browser.close()
    return 0


def _grey_pictures(folder: Path) -> None:
    """Grey pictures under the names that the graphs use: nobody's face belongs into a shipped file."""
    for file in (WORKFLOWS / "api").glob("*.json"):
        for node in json.loads(file.read_text(encoding="utf-8")).values():
            name = node["inputs"].get("image")
            if node["class_type"] == "LoadImage" and isinstance(name, str):
                Image.new("RGB", (512, 384), "gray").save(folder / name)


def photograph(page: ComfyPage, graph: Mapping[str, Any], target: Path) -> list[str]:
    """Keep the picture of one graph; where the page lacks nodes, return their types and keep nothing."""
    page.load(graph)
    missing = page.unknown_types()
    if missing:
        return missing
    left, top, width, height = page.ask(FIT)
    width, height = int(width) + 2 * MARGIN, int(height) + 2 * MARGIN
    page.page.set_viewport_size({"width": LEFT + width, "height": ABOVE + height + BELOW})
    page.page.wait_for_timeout(1000)
    page.ask(PLACE, [left, top, LEFT + MARGIN, ABOVE + MARGIN])
    page.page.wait_for_timeout(500)
    clip = {"x": LEFT, "y": ABOVE, "width": width, "height": height}
    shot = Image.open(BytesIO(page.page.screenshot(clip=clip))).convert("RGB")
    shot.thumbnail((LARGEST_WIDTH, LARGEST_WIDTH), Image.Resampling.LANCZOS)
    for quality in (85, 75, 65, 50, 40):
        content = BytesIO()
        shot.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= LARGEST_BYTES:
            break
    target.write_bytes(content.getvalue())
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
