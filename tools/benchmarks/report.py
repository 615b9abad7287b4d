"""Figures of a run as the documentation shows them: JSON, a table made of it, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .rows import STEP

PEOPLE = (1, 2, 4)
NOT_REACHED = "the published run was stopped before it; `make bench` measures it"
Content = Mapping[str, Any]
INTRODUCTION = """# Benchmarks

Made by `make bench` (`tools/bench.py --publish`) of [benchmarks.json](benchmarks.json), which may join rows of
several runs.
Only ratios: each is measured side by side in one process, in rounds whose order turns, and given as the median. Models
have the real layers at small width, so times weigh the cost of calls more than a real model does; counts of operations
do not depend on width. On a CPU, times are the process's CPU time, which other work on the machine changes little; the
setting says how busy it was.

`make bench DEVICE=cuda` measures the same on a card; `COMFYUI_PATH` and `COMFYUI_PYTHON` name a newer ComfyUI for the
families on Flux, Wan and HunyuanVideo.
"""
STEP_NOTE = """
Operations are calls of ATen that are no views; synchronisations are values read back in a step, beyond those of the
plain model. A dash: this system takes one person, or one reference. AM-Adapter's step contains the exemplar's pass
through a second model, RestorerID's a residual branch in every block.
'Weights held' is what the patched model keeps beside the plain one, against the adapter's file (a LoRA is not merged in
these runs; HunyuanVideo-Avatar's and DreamID-V's files hold the base model too); it hardly grows with people, since the
weights are there once.
'Apply again' is the time of applying with a changed strength against a new identity.
"""


def completed(content: Content, families: Sequence[str], topics: Sequence[str]) -> dict[str, Any]:
    """The same with a reason for every family and topic that the run did not reach."""
    known = {row["family"] for row in content["ratios"]} | {row["topic"] for row in content["ratios"]}
    reached = known | set(content["not_measured"])
    missing = dict.fromkeys((name for name in (*families, *topics) if name not in reached), NOT_REACHED)
    return {**content, "not_measured": {**content["not_measured"], **missing}}


def publish(content: Content, folder: Path) -> None:
    """Write ``benchmarks.json``, ``benchmarks.md`` and ``benchmarks.png`` into ``folder``."""
    (folder / "benchmarks.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "benchmarks.md").write_text(as_markdown(content), encoding="utf-8")
    plot(content, folder / "benchmarks.png")


def as_markdown(content: Content) -> str:
    """The whole page."""
    setting = "; ".join(f"{name} {value}" for name, value in content["setting"].items())
    parts = [INTRODUCTION, f"\nSetting: {setting}.\n", "\n## A sampling step with an adapter / without\n"]
    parts += ["\n![Operations of a step with one identity against none](benchmarks.png)\n\n", step_table(content)]
    parts += [STEP_NOTE, "\n## Everything else\n\n", other_table(content)]
    parts += ["\n## Not measured here\n\n"]
    parts += [f"- `{name}`: {reason}.\n" for name, reason in content["not_measured"].items()]
    return "".join(parts)


def step_table(content: Content) -> str:
    """One line for each system."""
    rows = [row for row in content["ratios"] if row["topic"] == STEP]
    subjects = dict.fromkeys(row["subject"] for row in rows)
    lines = [
        "| System | Operations 1 / 2 / 4 | Synchronisations added | Step time 1 / 2 / 4 | Weights held 1 / 2 / 4 | "
        "Apply again |",
        "|---|---|---|---|---|---|",
    ]
    for subject in subjects:
        values = {(row["measure"], row["people"]): row["value"] for row in rows if row["subject"] == subject}
        added = max(value for (measure, _), value in values.items() if measure == "synchronisations added")
        cells = [subject, _people(values, "operations"), f"{added:.0f}", _people(values, "step time")]
        cells += [_people(values, "weights held"), _one(values, "apply time")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def other_table(content: Content) -> str:
    """One line for each ratio of the other topics."""
    lines = ["| Topic | Subject | Ratio | Median | Lowest to highest round |", "|---|---|---|---|---|"]
    for row in content["ratios"]:
        if row["topic"] != STEP:
            spread = f"{row['low']:.3f} to {row['high']:.3f}"
            cells = [row["topic"], row["subject"], row["measure"], f"{row['value']:.3f}", spread]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(content: Content, path: Path) -> None:
    """Bars of the operations of a step with one identity against none."""
    from likeness_pack.training.plot import bar_plot

    shown = {
        row["subject"]: row["value"]
        for row in content["ratios"]
        if row["topic"] == STEP and row["measure"] == "operations" and row["people"] == 1
    }
    bar_plot(shown, title="operations of a step, one identity / none").save(path)


def _one(values: Mapping[tuple[str, int], float], measure: str) -> str:
    return f"{values[measure, 1]:.3f}" if (measure, 1) in values else "–"


def _people(values: Mapping[tuple[str, int], float], measure: str) -> str:
    found = [values.get((measure, people)) for people in PEOPLE]
    return " / ".join("–" if value is None else f"{value:.3f}" for value in found)
