"""The same numbers on a card as on the CPU, and no wait for it in a step; in a process whose engine uses the card.

A process has one engine and one device, so each test starts ``tests/support/cuda_step.py`` and reads what it says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device that torch sees"),
]
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "cuda_step.py"
# Change of a step's result against its own size, float32 on the CPU being the truth; two models' rounding is in it.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


@cache
def result(device: str, dtype: str, system: str) -> dict[str, Any]:
    environment = {**os.environ, "LIKENESS_DEVICE": device, "PYTHONUTF8": "1"}
    command = [sys.executable, str(PROGRAM), device, dtype, system]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("system", ["faceid_sd15", "fact", "ip_adapter_plus_sd15"])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_the_card_gives_the_numbers_of_the_cpu(dtype: str, system: str) -> None:
    card, truth = result("cuda", dtype, system), result("cpu", "float32", system)
    for name in ("plain", "patched"):
        found, wanted = torch.tensor(card[name]), torch.tensor(truth[name])
        assert float((found - wanted).norm() / wanted.norm()) < TOLERANCE[dtype], name
    assert card["plain"] != card["patched"]


@pytest.mark.parametrize("system", ["faceid_sd15", "fact", "ip_adapter_plus_sd15"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_step_with_an_identity_waits_for_the_card_no_more_than_without(dtype: str, system: str) -> None:
    assert result("cuda", dtype, system)["added_waits"] == 0
