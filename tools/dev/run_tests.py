"""The whole suite: ``python tools/dev/run_tests.py [pytest options]``.

Browser and farm have commands of their own (``make ui-test``, ``make farm-test``), since they fetch what others do not
need.
With COMFYUI_PATH (a checkout) and COMFYUI_PYTHON (its interpreter) the tests that need a ComfyUI run on that one, and
all others in this environment as always.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from comfy_process import ROOT

ON_THE_HOST = ("tests/host", "tests/golden")
ELSEWHERE = ("--ignore=tests/ui", "--ignore=tests/farm")


def pytest(python: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run pytest in the project root; return its exit code."""
    command = [python, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


def upstream_python(environment: Mapping[str, str]) -> str:
    """The interpreter of the checkout; one sentence where it cannot run the tests."""
    python = environment.get("COMFYUI_PYTHON")
    remedy = "make one with: python tools/dev/setup_env.py --upstream CHECKOUT --venv FOLDER"
    if not python:
        raise SystemExit(f"COMFYUI_PATH is set but COMFYUI_PYTHON is not: name the checkout's interpreter, or {remedy}")
    probe = subprocess.run([python, "-c", "import pytest, torch"], capture_output=True, text=True, check=False)
    if probe.returncode:
        missing = probe.stderr.strip().splitlines()[-1:]
        raise SystemExit(f"{python} cannot run the host tests ({' '.join(missing)}): install pytest there, or {remedy}")
    return python


def main(options: Sequence[str]) -> int:
    """Run everything; return the first exit code that is not zero."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not environment.get("COMFYUI_PATH"):
        return pytest(sys.executable, [*ELSEWHERE, *options], environment)
    python = upstream_python(environment)
    own = {name: value for name, value in environment.items() if not name.startswith("COMFYUI_")}
    first = pytest(sys.executable, [*ELSEWHERE, "--ignore=tests/host", *options], own)
    second = pytest(python, [*ON_THE_HOST, *options], environment)
    return first or second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
