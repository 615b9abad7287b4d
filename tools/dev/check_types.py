"""Runs mypy over the pack as the package ``likeness_pack``: ``python tools/dev/check_types.py``.

The pack is imported by relative imports from a folder of any name; mypy resolves those only below a folder that is
named like a package, and silently takes them for Any otherwise. So a copy under such a name is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from comfy_process import ROOT, pack_files

PACKAGE = "likeness_pack"
TREE = ROOT / ".mypy_cache" / "tree"


def mirror(source: Path, target: Path) -> None:
    """Make ``target`` hold the pack's Python files, and nothing that is gone; unchanged files keep their times."""
    files = [file for file in pack_files(source) if file.suffix == ".py"]
    for old in target.rglob("*.py"):
        if old.relative_to(target) not in set(files):
            old.unlink()
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / file, target / file)
    (target / "__init__.py").touch()


def main() -> int:
    """Print mypy's findings with the project's own paths; return its exit code."""
    mirror(ROOT, TREE / PACKAGE)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), PACKAGE]
    environment = {**os.environ, "MYPYPATH": str(TREE)}
    result = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(result.stdout.replace(f"{PACKAGE}{os.sep}", ""))
    sys.stderr.write(result.stderr)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
