"""The farm's tests: ``python tools/dev/run_farm_tests.py [pytest options]``, with .venv's Python.

They need Ray's environment, .venv-farm, which is made first; LIKENESS_FARM_PYTHON names another one. With COMFYUI_PATH
and COMFYUI_PYTHON the actors run that ComfyUI, else the package of this environment.
"""

from __future__ import annotations

import os
import sys

from run_tests import pytest
from setup_env import farm_environment


def main() -> int:
    """Make the environment and run the tests."""
    python = os.environ.get("LIKENESS_FARM_PYTHON") or str(farm_environment())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LIKENESS_FARM_PYTHON": python}
    return pytest(sys.executable, ["tests/farm", *sys.argv[1:]], environment)


if __name__ == "__main__":
    sys.exit(main())
