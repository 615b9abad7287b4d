"""Runs the golden test of every file in a folder: ``python tests/golden/run_parity.py FOLDER``.

Prints a line per part and last ``N passed, M failed, K need a newer host``; a file without a part counts as failed, and
so does a module of parts that cannot be imported.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import torch  # noqa: E402
from harness import Golden, NeedsNewerHost, Part, load_parts  # noqa: E402
from pack import register  # noqa: E402


def run_part(path: Path, part: Part | None) -> tuple[str, str]:
    """Return (status, detail) of one golden file; any failure of a part is a result here, not a crash."""
    if part is None:
        return "FAILED", "no test for this part"
    started = time.perf_counter()
    try:
        with torch.no_grad():
            part(Golden(path))
    except NeedsNewerHost as reason:
        return "NEEDS A NEWER HOST", str(reason)
    except Exception as error:  # noqa: BLE001 (a report over many parts must reach its end)
        return "FAILED", f"{type(error).__name__}: {error}".splitlines()[0]
    return "passed", f"{time.perf_counter() - started:.1f} s"


def main(folder: Path) -> int:
    """Run all parts; return the exit code."""
    register()
    torch.set_num_threads(1)
    broken: dict[str, str] = {}
    parts = load_parts(broken)
    files = sorted(folder.glob("*.safetensors"))
    counts = {"passed": 0, "FAILED": len(broken), "NEEDS A NEWER HOST": 0}
    for name, reason in broken.items():
        sys.stdout.write(f"{name}: FAILED (cannot be imported: {reason})\n")
    for path in files:
        status, detail = run_part(path, parts.get(path.stem))
        counts[status] += 1
        sys.stdout.write(f"{path.stem}: {status} ({detail})\n")
        sys.stdout.flush()
    if not files:
        sys.stdout.write(f"no golden files in {folder}\n")
    sys.stdout.write(
        f"{counts['passed']} passed, {counts['FAILED']} failed, {counts['NEEDS A NEWER HOST']} need a newer host\n"
    )
    return 1 if counts["FAILED"] or not files else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: run_parity.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
