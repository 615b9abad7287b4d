"""Counts of all hostile cases: printed at the end, and written as JSON where LIKENESS_ABUSE_REPORT names a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz_counts import REPORT, Tallies, Tally, Watch, is_long
from fuzz_server import AbuseServer

_TALLIES = pytest.StashKey[Tallies]()


def pytest_configure(config: pytest.Config) -> None:
    """One set of counts for the run."""
    config.stash[_TALLIES] = Tallies()


@pytest.fixture(scope="session")
def tallies(pytestconfig: pytest.Config) -> Tallies:
    """Counts by topic."""
    return pytestconfig.stash[_TALLIES]


@pytest.fixture(scope="session")
def watch() -> Watch:
    """Notes writing, programs started and connections of this process."""
    return Watch()


@pytest.fixture(scope="session")
def abused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AbuseServer]:
    """A running server with stand-ins, photos and nodes that give what no honest node gives."""
    with AbuseServer(tmp_path_factory.mktemp("abuse") / "host") as host:
        yield host


def _total(tallies: Tallies) -> Tally:
    total = Tally()
    for tally in tallies.values():
        total.tried += tally.tried
        total.accepted += tally.accepted
        total.host += tally.host
        total.typed += tally.typed
        total.untyped += tally.untyped
    return total


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the counts, and write them where they are asked for."""
    tallies = config.stash.get(_TALLIES, Tallies())
    if not tallies:
        return
    terminalreporter.section("abuse")
    for topic, tally in tallies.items():
        terminalreporter.write_line(f"{topic}: {tally.line()}")
    total = _total(tallies)
    terminalreporter.write_line(f"together: {total.line()}")
    if os.environ.get(REPORT):
        topics = {topic: tally.as_dict() for topic, tally in tallies.items()}
        report = {"version": "long" if is_long() else "short", "together": total.as_dict(), "topics": topics}
        Path(os.environ[REPORT]).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
