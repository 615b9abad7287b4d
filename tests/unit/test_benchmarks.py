"""The benchmarks: every family is measured or has a reason, only ratios are kept, and the page is made of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from likeness_pack.adapters import registry
from likeness_pack.evaluation import benchmark
from likeness_pack.evaluation.benchmark import Ratio, time_ratios
from likeness_pack.tools.benchmarks import content as contents
from likeness_pack.tools.benchmarks import report
from likeness_pack.tools.benchmarks.coverage import ELSEWHERE, STEPPED, UNMEASURED, reasons
from likeness_pack.tools.benchmarks.families import LIMITS, NEEDS_NEWER, TITLES
from likeness_pack.tools.benchmarks.registry import ON_CPU, STEPS, TOPICS
from likeness_pack.tools.benchmarks.rows import STEP, NotMeasured, Row
from likeness_pack.tools.benchmarks.sampling import Prompted, Sampled
from pack import ROOT
from tiny_systems import BY_NAME
from torch import device, zeros

DOCS = ROOT / "docs"
FAMILIES = {family.id for family in registry.families()}
ADAPTERS = {family.id for family in registry.families("adapter")}
# Families whose node takes several people, or is applied once for each.
OF_SEVERAL = {family for family, _ in TITLES.values()} | {"pulid_flux", "hunyuan_avatar"}


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


def test_the_code_measures_every_family_or_says_why_not() -> None:
    known = [set(STEPPED), set(ELSEWHERE), set(UNMEASURED)]
    assert set.union(*known) == FAMILIES
    assert sum(map(len, known)) == len(FAMILIES), "a family stands in one place"
    assert STEPPED <= ADAPTERS
    assert {"lafr", "musetalk", "imagineid_adapters"} == ADAPTERS - STEPPED
    assert set(ELSEWHERE.values()) <= set(TOPICS) - STEPS and set(TITLES) <= set(BY_NAME)
    assert all(len(reason) > 20 for reason in UNMEASURED.values())


def test_an_older_host_says_what_it_lacks() -> None:
    assert reasons(True) == UNMEASURED
    assert reasons(False).keys() - UNMEASURED.keys() == NEEDS_NEWER.keys() <= STEPPED
    assert all("COMFYUI_PATH" in reasons(False)[name] for name in NEEDS_NEWER)


def test_every_family_is_in_the_published_figures(content: Any) -> None:
    stepped = {row["family"] for row in content["ratios"] if row["topic"] == STEP}
    assert stepped == STEPPED
    others = {(row["family"], row["topic"]) for row in content["ratios"]}
    assert others >= set(ELSEWHERE.items())
    assert content["not_measured"].keys() >= UNMEASURED.keys()
    assert contents.NOT_REACHED not in content["not_measured"].values()


def test_every_step_has_all_of_its_figures(content: Any) -> None:
    rows = [row for row in content["ratios"] if row["topic"] == STEP]
    for subject in {row["subject"] for row in rows}:
        own = [row for row in rows if row["subject"] == subject]
        people = {1, 2, 4} if own[0]["family"] in OF_SEVERAL else {1}
        measures = ("operations", "synchronisations added", "weights held", "step time")
        expected = {(name, number) for name in measures for number in people} | {("apply time", 1)}
        assert {(row["measure"], row["people"]) for row in own} == expected, subject
        assert all(row["value"] == 0 for row in own if row["measure"] == "synchronisations added"), subject


def test_every_topic_is_in_the_published_figures(content: Any) -> None:
    assert {row["topic"] for row in content["ratios"]} == {STEP, *TOPICS} - STEPS
    assert set(TOPICS) > ON_CPU


def test_there_are_only_ratios(content: Any) -> None:
    """Numbers stand as value, range, bound and number of people; no record has a time, a size or a rate."""
    assert set(content) == {"settings", "ratios", "not_measured"}
    allowed = {
        "/settings/[]/threads",
        "/settings/[]/rounds",
        *(f"/ratios/[]/{name}" for name in ("value", "low", "high", "target", "people", "setting")),
    }
    assert {path for path, _ in numbers(content)} == allowed
    for row in content["ratios"]:
        words = f"{row['measure']} {row['subject']}".split()
        assert not {"ms", "s", "seconds", "bytes", "MB", "GB"} & set(words), row
        assert row["low"] <= row["value"] <= row["high"]
        assert 0 <= row["setting"] < len(content["settings"])
    for setting in content["settings"]:
        assert {"device", "dtype", "torch", "comfyui", "clock", "attention", "machine"} <= set(setting)


def test_counts_stay_inside_their_bounds(content: Any) -> None:
    bounded = [row for row in content["ratios"] if row["topic"] == STEP and row["target"] is not None]
    assert len([row for row in bounded if row["measure"] == "operations"]) > 25
    assert {row["target"] for row in bounded if row["measure"] == "operations"} == set(LIMITS.values())
    for row in bounded:
        assert row["value"] <= row["target"], row


def test_the_page_is_made_of_the_figures(content: Any) -> None:
    assert (DOCS / "benchmarks.md").read_text(encoding="utf-8") == report.as_markdown(content)


def figure(subject: str = "FACT", value: float = 1.0, family: str = "fact", topic: str = STEP) -> Row:
    return Row(topic, family, subject, 1, "synchronisations added", Ratio("a / b", value, value, value))


def a_run(host: str, *found: Row | NotMeasured, machine: str = "idle") -> dict[str, Any]:
    content = contents.started({"comfyui": host, "machine": machine}, {"pulid_flux": "this one has none"})
    for one in found:
        contents.add(content, one)
    return content


def test_runs_are_joined_by_their_settings() -> None:
    old = a_run("old", figure(value=2.0), NotMeasured("a file", "it is not there"))
    new = a_run("new", figure(value=3.0), figure("PuLID", 1.0, "pulid_flux"))
    again = a_run("old", figure(value=4.0), machine="busy")
    joined = contents.merged([new, old, again])
    assert [one["comfyui"] for one in joined["settings"]] == ["new", "old"]
    assert joined["settings"][1]["machine"] == "idle"
    assert [(row["setting"], row["value"]) for row in joined["ratios"]] == [(0, 3.0), (0, 1.0), (1, 4.0)]
    assert joined["not_measured"] == {"a file": "it is not there"}, "what one run measured needs no reason"
    page = report.as_markdown(joined)
    assert "Setting 2: comfyui old; machine idle." in page and "| FACT | 2 |" in page
    assert "Setting 2" not in report.as_markdown(contents.merged([new]))


def test_what_a_stopped_run_did_not_reach_is_named() -> None:
    content = a_run("new", figure(), NotMeasured("lafr", "one reason"))
    done = contents.completed(content, ["fact", "lafr", "w_plus"], ["swap"])
    left = {"pulid_flux": "this one has none", "lafr": "one reason"}
    assert done["not_measured"] == {**left, "w_plus": contents.NOT_REACHED, "swap": contents.NOT_REACHED}


def test_a_changed_figure_changes_the_page(content: Any) -> None:
    page = report.as_markdown(content)
    for measure in ("operations", "step time", "weights held", "apply time"):
        changed = json.loads(json.dumps(content))
        next(row for row in changed["ratios"] if row["measure"] == measure)["value"] += 1
        assert report.as_markdown(changed) != page, measure


def test_publishing_writes_four_files(content: Any, tmp_path: Path) -> None:
    report.publish(content, tmp_path)
    assert json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8")) == content
    for name in ("benchmarks.png", "benchmarks_time.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (DOCS / name).is_file()


def test_a_row_rounds_and_keeps_its_place() -> None:
    row = Row(STEP, "fact", "FACT", 2, "operations", Ratio("a / b", 1.234567, 1.0, 2.0, 1.5))
    assert row.as_json() == {
        "topic": STEP, "family": "fact", "subject": "FACT", "people": 2, "measure": "operations",
        "value": 1.2346, "low": 1.0, "high": 2.0, "target": 1.5,
    }  # fmt: skip


def test_a_model_may_bring_its_own_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any]] = []
    monkeypatch.setattr(Sampled, "run", lambda self, model, steps, callback: seen.append((model, self.positive)))
    prompted = Prompted(Sampled(zeros(1), [["usual", {}]], []))
    prompted.run("plain", 1)
    prompted.run(("patched", [["own", {}]]), 1)
    assert seen == [("plain", [["usual", {}]]), ("patched", [["own", {}]])]


def test_times_on_the_cpu_are_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the wall clock says, ratios are of the process's own time."""
    times = iter(float(number) for number in range(1000))
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(times))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: pytest.fail("wall time on a CPU"))
    (ratio,) = time_ratios(lambda: None, {"twice": lambda: [next(times), next(times)]}, device("cpu"), 3)
    assert ratio.value == 3.0 and "tools.bench" not in sys.modules
