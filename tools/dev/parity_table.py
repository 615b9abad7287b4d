"""Writes ``docs/parity.md`` from the golden parts and what they gave: ``python tools/dev/parity_table.py [--check]``.

Results come from ``tests/golden/results.json``, which ``tests/golden/run_parity.py FOLDER --json`` writes for each
ComfyUI that it runs in. Nothing of the table is typed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [entry for entry in [str(Path(__file__).parent)] if entry not in sys.path]

from node_schema import ROOT  # noqa: E402 (the path is set above)
from readme_tables import golden_parts, markdown, parity_summary, proof, tolerance, topic  # noqa: E402

RESULTS = ROOT / "tests" / "golden" / "results.json"
DOCUMENT = ROOT / "docs" / "parity.md"
HEAD = """# Parity

Made by `python tools/dev/parity_table.py` from the results of `tests/golden/run_parity.py`; nothing here is typed.

A golden file holds what the authors' own code computes with weights and inputs that a deterministic rule makes from
names and shapes. A part passes when the project's network, built from the published key names and filled by the same
rule, agrees within tolerance · (1 + |expected|), in float32 on the CPU with one thread. The number beside a result is
the largest error that was found, in the same unit; parts without one measure pictures in levels or pixels.

`make test` uses the subset in `tests/golden/data`, `make parity GOLDEN=<dir>` a whole folder. Two numbers need a word.
RetinaFace is held to 1e-4: fifty random layers carry values up to 70, where float32 itself is uncertain by 4e-5. The
parts through a whole UNet are held to 3e-4, twice what the two unpatched UNets differ.

"""

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def read_results() -> Results:
    """Results by host, then by part."""
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


def document(results: Results) -> str:
    """The whole text of the document."""
    hosts = sorted(results, reverse=True)
    parts = golden_parts()
    rows = []
    for name, part in parts.items():
        given = [shown(results[host].get(name)) for host in hosts]
        rows.append((topic(part), f"`{name}`", tolerance(name, part), *given, proof(part)))
    counts = [f"{host}: {_count(results[host], parts)} of {len(parts)} parts passed" for host in hosts]
    passed = {name for host in hosts for name in parts if _passed(results[host].get(name))}
    summary = f"{len(passed)} of {len(parts)} parts passed on one of these: " + "; ".join(counts) + ".\n"
    note = "Most parts need no ComfyUI and give the same on each; not all were run on all (-).\n\n"
    table = markdown(("part", "golden file", "tolerance", *hosts, "what it proves"), sorted(rows))
    return f"{HEAD}{summary}\n## Subjects\n\n{parity_summary()}\n\n## Every part\n\n{note}{table}\n"


def shown(result: Mapping[str, Any] | None) -> str:
    """One cell: what a part gave on one host."""
    if result is None:
        return "-"
    if result["status"] != "passed":
        return str(result["status"]).lower()
    return "passed" if result["error"] is None else f"passed, {_short(result['error'])}"


def _short(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def _passed(result: Mapping[str, Any] | None) -> bool:
    return result is not None and result["status"] == "passed"


def _count(results: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Any]) -> int:
    return sum(_passed(results.get(name)) for name in parts)


def main(arguments: Sequence[str]) -> int:
    """Write the document, or with --check only say whether it is current."""
    new = document(read_results())
    if "--check" not in arguments:
        DOCUMENT.write_text(new, encoding="utf-8", newline="\n")
        return 0
    current = DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == new
    if not current:
        print("docs/parity.md is not current: run python tools/dev/parity_table.py")
    return int(not current)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
