"""The published figures of the benchmarks: every family, only ratios, and a page that is made of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from likeness_pack.adapters import registry
from likeness_pack.evaluation import benchmark
from likeness_pack.evaluation.benchmark import Ratio, time_ratios
from likeness_pack.tools.benchmarks import report
from likeness_pack.tools.benchmarks.families import LIMITS, NEEDS_NEWER, TITLES, WITHOUT_STEP
from likeness_pack.tools.benchmarks.registry import STEPS, TOPICS
from likeness_pack.tools.benchmarks.rows import STEP, Row
from pack import ROOT
from torch import device

DOCS = ROOT / "docs"
ADAPTERS = [family.id for family in registry.families("adapter")]


@pytest.fixture(scope="module")
def content() -> Any:
    return json.loads((DOCS / "benchmarks.json").read_text(encoding="utf-8"))


def numbers(value: Any, path: str = "") -> list[tuple[str, float]]:
    """Every number of a JSON value by its path."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in numbers(item, f"{path}/{name}")]
    if isinstance(value, list):
        return [found for item in value for found in numbers(item, f"{path}/[]")]
    return [(path, float(value))] if isinstance(value, (int, float)) else []


def test_every_family_has_a_row_or_a_reason(content: Any) -> None:
    measured = {row["family"] for row in content["ratios"] if row["topic"] == STEP}
    assert measured | set(content["not_measured"]) >= set(ADAPTERS)
    assert measured <= set(ADAPTERS) and not measured & set(content["not_measured"])
    assert all(len(reason) > 20 for reason in content["not_measured"].values())


def test_the_code_knows_every_family_as_well() -> None:
    from likeness_pack.tools.benchmarks import families_dit, families_unet

    known = {family for family, _ in TITLES.values()} | set(families_unet.BUILDERS) | set(families_dit.BUILDERS)
    assert known | set(WITHOUT_STEP) == set(ADAPTERS)
    assert not known & set(WITHOUT_STEP) and set(NEEDS_NEWER) <= set(families_dit.BUILDERS)


def test_there_are_only_ratios(content: Any) -> None:
    """Numbers stand as value, range, bound and number of people; no record has a time, a size or a rate."""
    assert set(content) == {"setting", "ratios", "not_measured"}
    allowed = {
        "/setting/threads",
        "/setting/rounds",
        *(f"/ratios/[]/{name}" for name in ("value", "low", "high", "target", "people")),
    }
    assert {path for path, _ in numbers(content)} == allowed
    for row in content["ratios"]:
        words = f"{row['measure']} {row['subject']}".split()
        assert not {"ms", "s", "seconds", "bytes", "MB", "GB"} & set(words), row
        assert row["low"] <= row["value"] <= row["high"]
    assert {"device", "dtype", "torch", "comfyui", "clock"} <= set(content["setting"])


def test_the_rows_that_the_project_promises_are_there(content: Any) -> None:
    rows = content["ratios"]
    topics = {row["topic"] for row in rows}
    assert topics <= {STEP, *TOPICS} - STEPS
    assert topics | set(content["not_measured"]) >= set(TOPICS) - STEPS
    for family in ("ip_adapter_faceid", "pulid_flux", "hunyuan_avatar"):
        of = {(row["measure"], row["people"]) for row in rows if row["family"] == family}
        assert of >= {(name, people) for name in ("operations", "step time", "weights held") for people in LIMITS}
        assert ("apply time", 1) in of


def test_counts_stay_inside_their_bounds(content: Any) -> None:
    bounded = [row for row in content["ratios"] if row["topic"] == STEP and row["target"] is not None]
    assert len(bounded) > 20
    for row in bounded:
        assert row["value"] <= row["target"], row


def test_the_page_is_made_of_the_figures(content: Any) -> None:
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == report.as_markdown(content)


def test_what_a_stopped_run_did_not_reach_is_named() -> None:
    content = {"ratios": [{"family": "fact", "topic": STEP}], "not_measured": {"lafr": "one reason"}}
    done = report.completed(content, ["fact", "lafr", "w_plus"], ["swap"])
    assert done["not_measured"] == {"lafr": "one reason", "w_plus": report.NOT_REACHED, "swap": report.NOT_REACHED}


def test_a_changed_figure_changes_the_page(content: Any) -> None:
    changed = json.loads(json.dumps(content))
    changed["ratios"][0]["value"] += 1
    assert report.as_markdown(changed) != report.as_markdown(content)


def test_publishing_writes_three_files(content: Any, tmp_path: Path) -> None:
    report.publish(content, tmp_path)
    assert json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8")) == content
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    assert (DOCS / "benchmarks.png").is_file()


def test_a_row_rounds_and_keeps_its_place() -> None:
    row = Row(STEP, "fact", "FACT", 2, "operations", Ratio("a / b", 1.234567, 1.0, 2.0, 1.5))
    assert row.as_json() == {
        "topic": STEP, "family": "fact", "subject": "FACT", "people": 2, "measure": "operations",
        "value": 1.2346, "low": 1.0, "high": 2.0, "target": 1.5,
    }  # fmt: skip


def test_times_on_the_cpu_are_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the wall clock says, ratios are of the process's own time."""
    times = iter(float(number) for number in range(1000))
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(times))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: pytest.fail("wall time on a CPU"))
    (ratio,) = time_ratios(lambda: None, {"twice": lambda: [next(times), next(times)]}, device("cpu"), 3)
    assert ratio.value == 3.0 and "tools.bench" not in sys.modules
