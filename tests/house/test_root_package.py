"""The root is a package for ComfyUI and a plain folder for pytest, whatever a clone is called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pack import ROOT

# One file of each kind of import: the pack's parts, the commands, and helpers of the tests.
FEW = ("tests/unit/test_landmarks.py", "tests/unit/test_tools_checkpoint.py", "tests/house/test_packaging.py")


@pytest.mark.parametrize("folder", ["likeness_clone", "likeness-clone"])
def test_tests_are_collected_in_a_clone_of_any_name(folder: str, tmp_path: Path) -> None:
    clone = tmp_path / folder
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True, capture_output=True)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *FEW]
    environment = {**os.environ, "PYTHONPATH": ""}
    result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    found = re.search(r"(\d+) tests collected", result.stdout)
    assert found and int(found[1]) > 50


def test_the_root_is_a_plain_module_for_test_runners() -> None:
    program = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('__init__', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "assert 'torch' not in sys.modules and module.NODE_CLASS_MAPPINGS == {}\n"
        "assert module.WEB_DIRECTORY == './web'\n"
    )
    command = [sys.executable, "-c", program, str(ROOT / "__init__.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_root_has_no_file_that_changes_collection() -> None:
    assert not (ROOT / "conftest.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()
