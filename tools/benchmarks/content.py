"""The figures of runs as they are kept in JSON: settings, rows that name their setting, reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .rows import NotMeasured, Row

Content = Mapping[str, Any]
NOT_REACHED = "the published run was stopped before it; `make bench` measures it"
_PLACE = ("setting", "topic", "family", "subject", "people", "measure")


def started(setting: Mapping[str, object], reasons: Mapping[str, str]) -> dict[str, Any]:
    """A run without rows yet; ``reasons`` by family that it does not measure."""
    return {"settings": [dict(setting)], "ratios": [], "not_measured": dict(reasons)}


def add(content: dict[str, Any], found: Row | NotMeasured) -> None:
    """Take what a run found into its content."""
    if isinstance(found, NotMeasured):
        content["not_measured"][found.subject] = found.reason
    else:
        content["ratios"].append({**found.as_json(), "setting": 0})


def merged(contents: Iterable[Content]) -> dict[str, Any]:
    """Several runs as one; of a figure that two have in one setting, the later is kept.

    Settings that differ only in how busy the machine was are one, the first.
    """
    settings: list[dict[str, Any]] = []
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for content in contents:
        numbers = [_number_of(one, settings) for one in content["settings"]]
        for row in content["ratios"]:
            moved = {**row, "setting": numbers[row["setting"]]}
            rows[tuple(moved[name] for name in _PLACE)] = moved
        reasons |= content["not_measured"]
    known = _known(rows.values())
    left = {name: reason for name, reason in reasons.items() if name not in known}
    return {"settings": settings, "ratios": list(rows.values()), "not_measured": left}


def completed(content: Content, families: Sequence[str], topics: Sequence[str]) -> dict[str, Any]:
    """The same with a reason for every family and topic that the runs did not reach."""
    reached = _known(content["ratios"]) | set(content["not_measured"])
    missing = dict.fromkeys((name for name in (*families, *topics) if name not in reached), NOT_REACHED)
    return {**content, "not_measured": {**content["not_measured"], **missing}}


def _known(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(row[name]) for row in rows for name in ("family", "topic")}


def _number_of(setting: Mapping[str, Any], settings: list[dict[str, Any]]) -> int:
    for number, known in enumerate(settings):
        if {**known, "machine": ""} == {**setting, "machine": ""}:
            return number
    settings.append(dict(setting))
    return len(settings) - 1
