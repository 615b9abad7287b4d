"""tools/run_workflow.py, as a command, against a real ComfyUI: uploads, outputs, failures, stopping, a whole folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from farm_yard import workflow
from host_process import ComfyProcess
from module_folders import ModuleFolders
from pack import ROOT
from PIL import Image


@pytest.fixture(scope="module")
def server(module_folders: ModuleFolders) -> Iterator[ComfyProcess]:
    host = ComfyProcess(module_folders.mktemp("headless") / "host")
    host.start(timeout=900)
    yield host
    host.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w.json").write_text(json.dumps(workflow(0, "likeness/one")), encoding="utf-8")
    for place in range(3):
        pixels = np.full((24, 32, 3), 40 * place + 10, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo {place}.png")
    return tmp_path


def command(server: ComfyProcess, folder: Path, *options: str) -> list[str]:
    tool = str(ROOT / "tools" / "run_workflow.py")
    return [sys.executable, tool, str(folder / "w.json"), "--port", str(server.port), *options]


def run(server: ComfyProcess, folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    result = subprocess.run(
        command(server, folder, "--json", *options), capture_output=True, text=True, encoding="utf-8", timeout=600
    )
    return result.returncode, json.loads(result.stdout), result.stderr


def test_a_folder_gives_its_pictures_one_by_one(server: ComfyProcess, folder: Path) -> None:
    for place in range(3):
        code, result, progress = run(
            server, folder, "--set", f"Photo.image=@{folder / f'photo {place}.png'}", "--output", str(folder / "out")
        )
        assert code == 0, progress
        (file,) = result["files"]
        assert (file["title"], file["subfolder"], file["type"]) == ("Save", "likeness", "output")
        with Image.open(file["path"]) as picture:
            assert np.unique(np.asarray(picture.convert("RGB"))).tolist() == [40 * place + 10]
        assert [text["title"] for text in result["texts"]] == ["Degrade"]
        assert progress.splitlines()[0] == "Photo"
        assert set(progress.splitlines()) <= {"Photo", "Degrade", "Save"}
    assert len(list((folder / "out").iterdir())) == 3


def test_the_same_run_again_lists_the_same_outputs(server: ComfyProcess, folder: Path) -> None:
    first, again = (run(server, folder, "--set", f"Photo.image=@{folder / 'photo 1.png'}") for _ in range(2))
    assert first[0] == again[0] == 0
    assert len(first[1]["files"]) == len(again[1]["files"]) == 1
    assert first[1]["texts"] == again[1]["texts"]


def test_refusals_and_failures_are_sentences(server: ComfyProcess, folder: Path) -> None:
    photo = f"Photo.image=@{folder / 'photo 0.png'}"
    code, result, _ = run(server, folder, "--set", photo, "--set", "Degrade.rounds=9")
    assert (code, result["status"]) == (1, "failed")
    assert result["error"].startswith("node 2 'Degrade' (LikenessDegradePictures): Value 9 bigger than max")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture follows")
    code, result, said = run(server, folder, "--set", f"Photo.image=@{folder / 'broken.png'}", "--quiet")
    assert code == 1
    assert result["error"].startswith("node 1 'Photo' (LoadImage): ")
    assert said == result["error"] + "\n"


@pytest.mark.skipif(sys.platform == "win32", reason="stops by a signal")
def test_stopping_the_command_stops_it_on_the_server(server: ComfyProcess, folder: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    many = {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": 64}, "_meta": {"title": "Many"}}
    slow = {**workflow(2, "likeness/one"), "4": many}
    slow["2"]["inputs"]["images"] = ["4", 0]
    (folder / "w.json").write_text(json.dumps(slow), encoding="utf-8")
    options = ("--set", f"Photo.image=@{folder / 'large.png'}", "--json")
    process = subprocess.Popen(
        command(server, folder, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where the tests themselves run in a shell's background, the signal would be inherited as ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip() == b"Degrade":
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "stopped"
    limit = time.monotonic() + 600
    while server.get("/queue")["queue_running"] and time.monotonic() < limit:
        time.sleep(0.1)
    messages = [name for entry in server.get("/history").values() for name, _ in entry["status"]["messages"]]
    assert messages.count("execution_interrupted") == 1
