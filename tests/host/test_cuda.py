"""The same numbers on a card as on the CPU, and no wait for it in a step; in a process whose engine uses the card.

An engine has one device, so one process samples every system on the CPU and one on the card
(``tests/support/cuda_step.py``). LIKENESS_TEST_DEVICE=cpu puts the CPU in the card's place: float16 and bfloat16
against float32, and reads of values for waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cuda_step
import pytest
import torch

DEVICE = os.environ.get("LIKENESS_TEST_DEVICE", "cuda")
card_only = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device that torch sees"
    ),
]
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "cuda_step.py"
SYSTEMS = ("faceid_sd15", "ip_adapter_plus_sd15", "fact", "w_plus", "id_animator")
# A step of SDXL in float16 takes a CPU too long for a test.
SYSTEMS += ("pulid_v1_1", "instantid") if DEVICE == "cuda" else ()
# Change of a step's result against its own size, float32 on the CPU being the truth; two models' rounding is in it.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
# Two engines are imported and a card's first kernels compiled, on a machine that may be busy.
SECONDS = 1800


@cache
def results(device: str, float_types: Sequence[str], systems: Sequence[str]) -> dict[str, Any]:
    environment = {**os.environ, "LIKENESS_DEVICE": device, "PYTHONUTF8": "1"}
    command = [sys.executable, str(PROGRAM), device, ",".join(float_types), ",".join(systems)]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def on_device(dtype: str, system: str) -> dict[str, Any]:
    found: dict[str, Any] = results(DEVICE, tuple(TOLERANCE), SYSTEMS)[dtype][system]
    return found


def difference(found: Sequence[float], wanted: Sequence[float]) -> float:
    """Distance of two latents against the size of the second."""
    one, other = torch.tensor(found), torch.tensor(wanted)
    return float((one - other).norm() / other.norm())


def check_numbers(found: dict[str, Any], truth: dict[str, Any], dtype: str) -> None:
    assert found["dtype"] == f"torch.{dtype}"
    for name in ("plain", "patched"):
        assert difference(found[name], truth[name]) < TOLERANCE[dtype], name
    # What the adapter changes is told apart from what rounding changes.
    change = difference(truth["patched"], truth["plain"])
    assert difference(found["patched"], found["plain"]) == pytest.approx(change, rel=0.3, abs=TOLERANCE[dtype])
    assert difference(found["patched"], found["plain"]) > 0


class TestOnTheCard:
    pytestmark = card_only

    @pytest.mark.parametrize("system", SYSTEMS)
    @pytest.mark.parametrize("dtype", list(TOLERANCE))
    def test_the_card_gives_the_numbers_of_the_cpu(self, dtype: str, system: str) -> None:
        check_numbers(on_device(dtype, system), results("cpu", ("float32",), SYSTEMS)["float32"][system], dtype)

    @pytest.mark.parametrize("system", SYSTEMS)
    @pytest.mark.parametrize("dtype", list(TOLERANCE))
    def test_a_step_with_an_identity_waits_for_the_card_no_more_than_without(self, dtype: str, system: str) -> None:
        assert on_device(dtype, system)["added_waits"] == 0


def test_the_comparison_runs_without_a_card() -> None:
    """The program that a card is tested with, on the CPU in two float types."""
    types = ("float32", "bfloat16")
    found = results("cpu", types, ("faceid_sd15",))
    for dtype in types:
        check_numbers(found[dtype]["faceid_sd15"], found["float32"]["faceid_sd15"], dtype)
        assert found[dtype]["faceid_sd15"]["added_waits"] == 0
    assert found["float32"]["faceid_sd15"]["plain"] != found["bfloat16"]["faceid_sd15"]["plain"]


def test_an_engine_on_another_device_is_refused(tmp_path: Path) -> None:
    """A card's numbers are never those of a CPU by mistake."""
    with pytest.raises(SystemExit, match="the engine uses cpu; set LIKENESS_DEVICE=cuda"):
        cuda_step.all_measured(["faceid_sd15"], torch.float32, "cuda", tmp_path)
