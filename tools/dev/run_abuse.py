"""The abuse suite: ``python tools/dev/run_abuse.py [--short] [--seed N] [--report FILE] [pytest options]``.

Runs tests/abuse in its long version, prints how many cases were tried, and writes the counts as JSON.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from comfy_process import ROOT

REPORT = ROOT / "build" / "abuse.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="run_abuse.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--short", action="store_true", help="the version that make test runs")
    parser.add_argument("--seed", type=int, default=0, help="another number tries other cases")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the counts go, as JSON")
    options, rest = parser.parse_known_args(arguments)
    options.report.resolve().parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "LIKENESS_ABUSE_REPORT": str(options.report.resolve()),
        "LIKENESS_ABUSE_SEED": str(options.seed),
    }
    if not options.short:
        environment["LIKENESS_ABUSE_LONG"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "tests/abuse", *rest]
    code = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    print(f"counts: {options.report}")
    return code


if __name__ == "__main__":
    sys.exit(main())
