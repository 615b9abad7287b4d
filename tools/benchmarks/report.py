"""Figures of a run as the documentation shows them: JSON, tables made of it, plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .content import Content
from .rows import STEP

PEOPLE = (1, 2, 4)
TITLES = {"operations": "operations of a step", "step time": "time of a step"}
Values = Mapping[tuple[str, int], Mapping[str, float]]
INTRODUCTION = """# Benchmarks

Made by `make bench` and `tools/bench.py --publish` of [benchmarks.json](benchmarks.json); nothing here is typed.
Only ratios: each is measured side by side in one process, in rounds whose order turns, and given as the median. Models
have the real layers at small width, so times weigh the cost of calls more than a real model does; counts of operations
do not depend on width. On a CPU, times are the process's CPU time, which other work on the machine changes little.

## How to measure

| command | does |
|---|---|
| `make bench` | every topic, within twelve minutes of one core; the figures go to `bench.json` |
| `make bench DEVICE=cuda` | the same on a card: wall time after synchronising, and the waits that torch reports |
| `python tools/bench.py --topic unet --rounds 20` | one topic with more rounds |
| `python tools/bench.py --publish a.json b.json` | this page of earlier runs, such as of two ComfyUI |
| `python tools/bench.py --publish docs/benchmarks.json new.json` | this page with the rows of a new run |
| `python -m pytest -m cuda tests/host` | a card against the CPU in three dtypes, and its waits in a step |

`COMFYUI_PATH` and `COMFYUI_PYTHON` name a newer ComfyUI for the families on Flux, Wan and HunyuanVideo. The tests
marked `cuda` are skipped where torch sees no card; `LIKENESS_TEST_DEVICE=cpu` puts the CPU in the card's place, so that
their logic runs anywhere in a minute. No figure here is of a card.
"""
STEP_NOTE = """
Operations are calls of ATen that are no views; synchronisations are values read back in a step, beyond those of the
plain model. A dash: this system takes one person, or one reference. AM-Adapter's step contains the exemplar's pass
through a second model, RestorerID's a residual branch in every block, FACT's a whole gated layer in every block and for
every person. 'Without' is the plain model, but for ControlNeXt it is AM-Adapter alone, for UnAvgLip it is MuseTalk, and
for DreamID the swap without the identity's tokens and landmarks.
'Weights held' is what the patched model keeps beside the plain one, against the adapter's file (a LoRA is not merged in
these runs but PhotoMaker's; the files of HunyuanVideo-Avatar, DreamID and DreamID-V hold the base model too; AM-Adapter
has a small file and keeps the exemplar's latents and maps); it hardly grows with people, since the weights are there
once.
'Apply again' is the time of applying with a changed strength against a new identity. The first MODEL is gone by then,
as in a server, while the pictures and identities are still there; tests count that no network runs. Above a tenth are:
PhotoMaker, whose LoRA is told to ComfyUI again, and `add_patches` lists every weight of the model at each call (an
adapter whose own LoRA acts calls it too: FaceID's does not act in these runs, with it the ratio is 0.2 to 0.3);
HunyuanVideo-Avatar and the emotion, whose whole first apply takes two milliseconds and a third of one at this width,
and what is left clones the model and places patches; AM-Adapter and ControlNeXt, which project nothing when they are
applied and work in the step.
"""
TIME_NOTE = """
Median, and in brackets the lowest and the highest round. {control}
At the smallest width a step is little more than its calls; a wider model at a larger latent is in the last table.
"""


def publish(content: Content, folder: Path) -> None:
    """Write ``benchmarks.json``, ``benchmarks.md`` and the plots of operations and times into ``folder``."""
    (folder / "benchmarks.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "benchmarks.md").write_text(as_markdown(content), encoding="utf-8")
    plot(content, folder / "benchmarks.png", "operations")
    plot(content, folder / "benchmarks_time.png", "step time")


def as_markdown(content: Content) -> str:
    """The whole page."""
    parts = [INTRODUCTION, "\n", settings_of(content), "\n## A sampling step with an adapter / without\n"]
    parts += ["\n![Operations of a step with one identity against none](benchmarks.png)\n\n", step_table(content)]
    parts += [STEP_NOTE, "\n## Time of a step with an adapter / without\n"]
    parts += ["\n![Time of a step with one identity against none](benchmarks_time.png)\n\n", time_table(content)]
    parts += [TIME_NOTE.format(control=control_of(content))]
    parts += ["\n## Everything else\n\n", other_table(content), "\n## Not measured here\n\n"]
    parts += [f"- `{name}`: {reason}.\n" for name, reason in content["not_measured"].items()]
    return "".join(parts)


def settings_of(content: Content) -> str:
    """One line for each setting; numbered where there are several."""
    lines = []
    for number, setting in enumerate(content["settings"], 1):
        name = f"Setting {number}" if len(content["settings"]) > 1 else "Setting"
        lines.append(f"{name}: {'; '.join(f'{key} {value}' for key, value in setting.items())}.\n")
    return "\n".join(lines)


def control_of(content: Content) -> str:
    """How far times of the same model were apart."""
    several, found = len(content["settings"]) > 1, []
    for row in content["ratios"]:
        if row["topic"] == "control":
            place = f" in setting {row['setting'] + 1}" if several else ""
            found.append(f"{row['subject']} took {_spread(row)}{place}")
    return "For comparison,\n" + ";\n".join(found) + "." if found else ""


def step_table(content: Content) -> str:
    """Counts: one line for each system."""
    heads = ["Operations 1 / 2 / 4", "Synchronisations added", "Weights held 1 / 2 / 4", "Apply again"]

    def cells(values: Values) -> list[str]:
        added = max(row["value"] for (measure, _), row in values.items() if measure == "synchronisations added")
        again = values.get(("apply time", 1))
        return [
            _people(values, "operations"),
            f"{added:.0f}",
            _people(values, "weights held"),
            "–" if again is None else f"{again['value']:.3f}",
        ]

    return _table(content, heads, cells)


def time_table(content: Content) -> str:
    """Times with their spread: one line for each system."""

    def cells(values: Values) -> list[str]:
        found = [values.get(("step time", people)) for people in PEOPLE]
        return ["–" if row is None else _spread(row) for row in found]

    return _table(content, ["1", "2", "4"], cells)


def _table(content: Content, heads: Sequence[str], cells: Any) -> str:
    rows = [row for row in content["ratios"] if row["topic"] == STEP]
    several = len(content["settings"]) > 1
    titles = ["System", *(["Setting"] if several else []), *heads]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for subject, setting in dict.fromkeys((row["subject"], row["setting"]) for row in rows):
        values = {
            (row["measure"], row["people"]): row
            for row in rows
            if (row["subject"], row["setting"]) == (subject, setting)
        }
        first = [subject, *([str(setting + 1)] if several else [])]
        lines.append(f"| {' | '.join([*first, *cells(values)])} |")
    return "\n".join(lines) + "\n"


def other_table(content: Content) -> str:
    """One line for each ratio of the other topics."""
    several = len(content["settings"]) > 1
    titles = ["Topic", "Subject", *(["Setting"] if several else []), "Ratio", "Median", "Lowest to highest round"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for row in content["ratios"]:
        if row["topic"] != STEP:
            place = [row["topic"], row["subject"], *([str(row["setting"] + 1)] if several else []), row["measure"]]
            spread = f"{row['low']:.3f} to {row['high']:.3f}"
            lines.append(f"| {' | '.join([*place, _plain(row), spread])} |")
    return "\n".join(lines) + "\n"


def plot(content: Content, path: Path, measure: str) -> None:
    """Bars of a step with one identity against none, with the lowest and highest round; of the first setting."""
    from likeness_pack.training.plot import bar_plot

    shown = [row for row in content["ratios"] if (row["topic"], row["measure"], row["people"]) == (STEP, measure, 1)]
    shown = [row for row in shown if row["setting"] == 0]
    values = {row["subject"]: row["value"] for row in shown}
    ends = {row["subject"]: (row["low"], row["high"]) for row in shown}
    bar_plot(values, ends, title=f"{TITLES[measure]}, one identity / none").save(path)


def _plain(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f}"


def _spread(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _people(values: Values, measure: str) -> str:
    found = [values.get((measure, people)) for people in PEOPLE]
    return " / ".join("–" if row is None else f"{row['value']:.3f}" for row in found)
