"""Memory of a swap from file to file does not grow with the clip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from clip_files import write_raw_clip
from clip_people import RED, frame_of
from pack import ROOT
from torch import Tensor

SIZE = (240, 320)
# Runs in a process of its own: peak memory of a process never falls again.
_RUN = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from likeness_path import register
register()
import torch
torch.set_num_threads(1)
from clip_people import ColourDetector
from identities import arcface_identity
from swap_standins import StandIn
from likeness_pack.adapters.swappers.clip import ClipSwap, swap_clip
from likeness_pack.media.transform import ClipJob
job = ClipSwap(ColourDetector(90.0), StandIn(64, lambda crops, _: 1 - crops), arcface_identity())
written, faces, _ = swap_clip(ClipJob(Path(sys.argv[1]), Path(sys.argv[2]), 8), job)
assert written.frames == len(faces) == sum(faces.counts)
print(written.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def walked(count: int) -> Iterator[Tensor]:
    return (frame_of({RED: (60.0 + n % 200, 120.0, 1)}, *SIZE, side=30) for n in range(count))


def peak(folder: Path, count: int) -> int:
    source = write_raw_clip(
        folder / f"{count}.mp4", walked(count), range(count), time_base=Fraction(1, 25), sound=16000, size=SIZE
    )
    command = [sys.executable, "-c", _RUN, str(source), str(folder / f"out {count}.mp4")]
    command += [str(ROOT / "tools"), str(ROOT / "tests" / "support")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    frames, memory = map(int, done.stdout.split())
    assert frames == count
    return memory


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak memory of a process this way")
def test_a_hundred_frames_more_need_no_more_memory(tmp_path: Path) -> None:
    # Held as numbers, 100 frames more would take 92 MB, as bytes 23; the process has 340.
    assert peak(tmp_path, 160) <= 1.05 * peak(tmp_path, 60)
