"""Runs the golden test of every file in a folder: ``python tests/golden/run_parity.py FOLDER [--json RESULTS]``.

Prints a line per part and last ``N passed, M failed, K need a newer host``; a file without a part counts as failed, and
so does a module of parts that cannot be imported. With ``--json`` the results of this ComfyUI are written beside those
of others in that file; with ``--lacking`` only the parts run that no ComfyUI has passed there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import torch  # noqa: E402
from harness import Golden, NeedsNewerHost, Part, load_parts  # noqa: E402
from pack import register  # noqa: E402

Results = dict[str, dict[str, Any]]


def run_part(path: Path, part: Part | None) -> tuple[str, str, dict[str, float]]:
    """Return (status, detail, errors by tensor) of one golden file; a failure is a result here, not a crash."""
    golden = Golden(path)
    if part is None:
        return "FAILED", "no test for this part", {}
    started = time.perf_counter()
    try:
        with torch.no_grad():
            part(golden)
    except NeedsNewerHost as reason:
        return "NEEDS A NEWER HOST", str(reason), {}
    except Exception as error:  # noqa: BLE001 (a report over many parts must reach its end)
        return "FAILED", f"{type(error).__name__}: {error}".splitlines()[0], golden.errors
    return "passed", f"{time.perf_counter() - started:.1f} s", golden.errors


def host_name() -> str:
    """The ComfyUI that parts run through: the checkout of COMFYUI_PATH, else the installed package."""
    if checkout := os.environ.get("COMFYUI_PATH"):
        text = Path(checkout, "comfyui_version.py").read_text(encoding="utf-8")
        found = re.search(r'__version__ = "([^"]+)"', text)
        return f"ComfyUI {found[1] if found else 'of unknown version'}"
    return f"package comfyui {metadata.version('comfyui')}"


def read_results(file: Path) -> dict[str, Results]:
    """Results by host, then by part."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def passed_anywhere(results: dict[str, Results]) -> set[str]:
    """The parts that some host has passed."""
    return {name for parts in results.values() for name, result in parts.items() if result["status"] == "passed"}


def main(folder: Path, file: Path | None = None, lacking: bool = False) -> int:
    """Run the parts; return the exit code."""
    register()
    torch.set_num_threads(1)
    broken: dict[str, str] = {}
    parts = load_parts(broken)
    known = read_results(file) if file else {}
    done = passed_anywhere(known) if lacking else set()
    files = [path for path in sorted(folder.glob("*.safetensors")) if path.stem not in done]
    counts = {"passed": 0, "FAILED": len(broken), "NEEDS A NEWER HOST": 0}
    for name, reason in broken.items():
        sys.stdout.write(f"{name}: FAILED (cannot be imported: {reason})\n")
    found: Results = {}
    for path in files:
        status, detail, errors = run_part(path, parts.get(path.stem))
        counts[status] += 1
        if path.stem in parts:
            found[path.stem] = {"status": status, "error": float(f"{max(errors.values()):.2g}") if errors else None}
        sys.stdout.write(f"{path.stem}: {status} ({detail})\n")
        sys.stdout.flush()
    if file:
        _write(file, known, found)
    if not files:
        sys.stdout.write(f"no golden files in {folder}\n")
    sys.stdout.write(
        f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['NEEDS A NEWER HOST']} need a newer host\n"
    )
    return 1 if counts["FAILED"] or not files else 0


def _write(file: Path, known: dict[str, Results], found: Results) -> None:
    host = host_name()
    results = {**known, host: dict(sorted({**known.get(host, {}), **found}.items()))}
    file.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="RESULTS")
    parser.add_argument("--lacking", action="store_true")
    arguments = parser.parse_args()
    sys.exit(main(arguments.folder, arguments.json, arguments.lacking))
