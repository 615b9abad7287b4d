"""What the tests of the farm share: photos, a workflow, the command, and its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pack import ROOT
from PIL import Image

LONGEST = 1500.0


def workflow(rounds: int, prefix: str) -> dict[str, Any]:
    """A photo through ``rounds`` of seeded degradation, saved under a prefix; needs no model."""
    degraded = {"images": ["1", 0], "seed": 1, "rounds": rounds, "each_picture": True}
    degraded |= dict.fromkeys(("blur", "resize", "noise", "jpeg"), 1.0)
    saved = {"images": ["2", 0], "filename_prefix": prefix}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}, "_meta": {"title": "Photo"}},
        "2": {"class_type": "LikenessDegradePictures", "inputs": degraded, "_meta": {"title": "Degrade"}},
        "3": {"class_type": "SaveImage", "inputs": saved, "_meta": {"title": "Save"}},
    }


class Yard:
    """A folder with photos, one hostile file, the workflow, and the command with further environment variables."""

    def __init__(self, folder: Path, photos: int, **variables: str) -> None:
        self.variables = variables
        self.folder, self.photos = folder, folder / "my photos 面"
        self.photos.mkdir()
        noise = np.random.default_rng(7)
        for place in range(photos):
            pixels = noise.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
            Image.fromarray(pixels).save(self.photos / f"photo {place:02d}.png")
        (self.photos / "hostile.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture follows")
        self.workflow = folder / "workflow.json"
        self.workflow.write_text(json.dumps(workflow(2, "farm")), encoding="utf-8")

    def start(
        self, output: str, *options: str, source: Path | None = None, before: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """Start the farm, behind the words ``before`` of another command; its own words go to the pipe."""
        command = [
            *before,
            os.environ["LIKENESS_FARM_PYTHON"],
            str(ROOT / "tools" / "farm.py"),
            str(source or self.photos),
        ]
        command += ["--workflow", str(self.workflow), "--output", str(self.folder / output), "--json", *options]
        if source is None:
            command += ["--input", "Photo.image"]
        environment = {"COMFYUI_PYTHON": sys.executable, **os.environ, **self.variables}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=environment, text=True, encoding="utf-8", cwd=self.folder, **streams)

    def run(self, output: str, *options: str, source: Path | None = None) -> tuple[int, dict[str, Any]]:
        """Run the farm to its end; its exit code and report."""
        return self.end(self.start(output, *options, source=source), output)

    def end(self, process: subprocess.Popen[str], output: str) -> tuple[int, dict[str, Any]]:
        """Wait for a farm; its exit code and report."""
        words, _ = process.communicate(timeout=LONGEST)
        report = self.folder / output / "report.json"
        assert report.is_file(), words
        return process.returncode, json.loads(report.read_text(encoding="utf-8"))

    def pictures(self, output: str, report: Mapping[str, Any]) -> dict[str, bytes]:
        """Pixels of every done item by its name; each has one picture."""
        found = {}
        for item in report["items"]:
            if item["status"] in ("done", "kept"):
                (name,) = item["files"]
                with Image.open(self.folder / output / name) as picture:
                    found[item["name"]] = str(picture.size).encode() + picture.convert("RGB").tobytes()
        return found


def until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + LONGEST
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit
        time.sleep(0.05)


def pids(work: Path) -> dict[str, dict[str, int]]:
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in work.glob("actor-*/owner.json")}


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
