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

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tools")]

from pack import register  # noqa: E402  (the paths are set above)

register()

from browser_page import ComfyPage, launch  # noqa: E402
from host_process import ComfyProcess  # noqa: E402
from likeness_pack.training.drawn_faces import draw, sample_attributes, sample_identities  # noqa: E402

WORKFLOWS = ROOT / "workflows"
LARGEST_WIDTH, MARGIN, LARGEST_BYTES = 2000, 40, 100_000
# Names that the graphs load: a photo of several people, maps of regions, and things that are no faces.
SHEET, GROUP, GROUP_PHOTO = (512, 384), 4, "t1.jpg"
MAPS = {"exemplar_map.png", "target_map.png", "keep.png"}
GARMENTS_AND_POSES = {"garment.png", "pose.png"}
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
        _drawn_pictures(host.base / "input")
        with sync_playwright() as playwright:
            browser = launch(playwright)
            page = ComfyPage(browser, host.url)
            for name in chosen:
                graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
                missing = photograph(page, graph, WORKFLOWS / f"{name}.jpg")
                print(f"{name}: {f'without {missing}, left as it was' if missing else 'photographed'}")
            browser.close()
    return 0


def _drawn_pictures(folder: Path) -> None:
    """Drawn people under the names that the graphs use: nobody's face belongs into a shipped file."""
    for seed, name in enumerate(sorted(_picture_names())):
        if name in GARMENTS_AND_POSES:
            Image.new("RGB", SHEET, "gray").save(folder / name)
        else:
            _drawn_sheet(name, seed).save(folder / name)


def _picture_names() -> set[str]:
    """Names that the API graphs load."""
    graphs = [json.loads(file.read_text(encoding="utf-8")) for file in (WORKFLOWS / "api").glob("*.json")]
    nodes = [node for graph in graphs for node in graph.values() if node["class_type"] == "LoadImage"]
    return {node["inputs"]["image"] for node in nodes if isinstance(node["inputs"].get("image"), str)}


def _drawn_sheet(name: str, seed: int) -> Image.Image:
    """One drawn person, several for a group, or the mask of a head where the graph wants a map."""
    people = GROUP if name == GROUP_PHOTO else 1
    generator = torch.Generator().manual_seed(seed)
    attributes = sample_attributes(people, generator).replaced(yaw=0.0, pitch=0.0, roll=0.0)
    drawn = draw(sample_identities(people, generator), attributes, size=SHEET[1])
    rows = drawn.head_mask[..., None].expand_as(drawn.images) if name in MAPS else drawn.images
    pixels = (torch.cat(list(rows), dim=1) * 255).round().to(torch.uint8).numpy()
    sheet = Image.new("RGB", (max(SHEET[0], pixels.shape[1]), SHEET[1]), "gray")
    sheet.paste(Image.fromarray(pixels), ((sheet.width - pixels.shape[1]) // 2, 0))
    return sheet


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
    for quality in (85, 75, 65, 50, 40, 32, 25):
        content = BytesIO()
        shot.save(content, "JPEG", quality=quality, optimize=True)
        if content.tell() <= LARGEST_BYTES:
            break
    target.write_bytes(content.getvalue())
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
