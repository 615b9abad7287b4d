"""The command that swaps faces in a clip: real faces, real detection, files of the published layouts."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clip_files import MIRROR, frame_times, packets, write_raw_clip
from module_folders import ModuleFolders
from pack import ROOT
from torch import Tensor

sys.path.append(str(ROOT / "tools"))
STAMPS = [0, 512, 1536, 1792, 2560, 3072]


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Path:
    """A clip, photos, a swapper and a recognition network."""
    for package in ("onnx", "onnxruntime", "insightface", "skimage"):
        pytest.importorskip(package)
    from PIL import Image
    from sample_faces import _pixels
    from swap_standins import write_onnx_recogniser, write_reswapper

    path = module_folders.mktemp("command") / "my clips 剪"
    path.mkdir()
    person = _pixels("skimage", "data", "astronaut.png")
    Image.fromarray((person * 255).byte().numpy()).save(path / "face.png")
    write_raw_clip(path / "in.mp4", moved(person), STAMPS, matrix=MIRROR, sound=16000)
    write_reswapper(path / "swapper.pth")
    write_onnx_recogniser(path / "insightface" / "models" / "buffalo_l" / "w600k_r50.onnx")
    return path


def moved(person: Tensor) -> Tensor:
    """Six frames (6, 240, 320, 3) uint8 in which a face goes right; the last one without it."""
    frames = [person[10:250, 100 - 12 * n : 420 - 12 * n] for n in range(len(STAMPS) - 1)]
    return (torch.stack([*frames, torch.full_like(frames[0], 0.4)]) * 255).byte()


def run(folder: Path, *more: str, output: str = "out.mp4", clip: str = "in.mp4") -> int:
    from swap_clip import main

    command = [str(folder / clip), str(folder / output), "--source", str(folder / "face.png"), "--chunk", "2"]
    command += [
        "--swapper",
        str(folder / "swapper.pth"),
        "--variant",
        "128",
        "--insightface",
        str(folder / "insightface"),
    ]
    return main([*command, *more])


def test_a_clip_is_swapped_from_file_to_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    told = capsys.readouterr()
    assert "5 faces swapped in 5 of 6 frames, 6 frames written" in told.out and "unchanged: 5" in told.out
    assert "100 %" in told.err and "ReSwapper 128" in told.out and "1 persons in 6 frames" in told.out
    assert frame_times(folder / "out.mp4") == [stamp * Fraction(1, 12800) for stamp in STAMPS]
    assert packets(folder / "out.mp4", "audio") == packets(folder / "in.mp4", "audio")
    from likeness_pack.media.facts import read_facts
    from likeness_pack.media.read import read_frames

    assert read_facts(folder / "out.mp4").orientation.matrix == MIRROR
    before, after = (next(iter(read_frames(folder / name))).frames for name in ("in.mp4", "out.mp4"))
    different = (after - before).abs().amax(-1) > 0.1
    assert all(bool(one.any()) for one in different[:5]) and float(different[5].float().mean()) < 0.001


def test_refusals_are_one_sentence_and_leave_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--on-missing-face", "error", "--quiet", output="none.mp4") == 1
    assert "a face to swap in every image" in capsys.readouterr().err
    assert run(folder, "--no-track", clip="face.txt", output="none.mp4") == 1
    assert "no such file" in capsys.readouterr().err
    assert run(folder, output="none.gif") == 1
    assert "choose one of these endings" in capsys.readouterr().err
    assert not [one for one in folder.iterdir() if one.name.startswith((".", "none"))]


def test_a_stop_leaves_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import swap_clip

    def stopping() -> object:
        def told(done: int, total: int) -> None:
            if done == 8:
                raise KeyboardInterrupt

        return told

    monkeypatch.setattr(swap_clip, "_progress", stopping)
    assert run(folder, output="stopped.mp4") == 130
    assert "no file was written" in capsys.readouterr().err
    assert not [one for one in folder.iterdir() if "stopped" in one.name]
