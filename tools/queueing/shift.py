"""One run of a farm: which items are missing, who works on which, and the report."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from .errors import NoServer
from .items import Item, Unusable, finished, write_outputs
from .owner import DONE, NO_HOST

BAR = 30
KEPT, FAILED = "kept", "failed"


class Hands(Protocol):
    """Who does the work: Ray's actors, or stand-ins of a test."""

    all: list[Any]

    def start(self, hand: Any, item: Item) -> Any:
        """Give an item to a free hand; returns what to wait for."""

    def next(self, waiting: Sequence[Any]) -> Any | None:
        """One of them that is ready, after a moment; or None."""

    def result(self, reference: Any) -> dict[str, Any]:
        """What the hand made of its item."""


class Shift:
    """The items of one run; equal items (same nodes, inputs and contents of files) are done once.

    Args:
        folder: where outputs and records are, and will be.
    """

    def __init__(self, items: Sequence[Item | Unusable], folder: Path, quiet: bool = False) -> None:
        self._items, self._folder, self._quiet = items, folder, quiet
        self._started = time.monotonic()
        self._results: dict[str, dict[str, Any]] = {}
        self._missing: deque[Item] = deque()
        seen: set[str] = set()
        for item in items:
            if isinstance(item, Unusable) or item.key in seen:
                continue
            seen.add(item.key)
            files = finished(folder, item.key)
            if files is None:
                self._missing.append(item)
            else:
                self._results[item.key] = {"status": KEPT, "files": files}
        self._all = len(seen)

    @property
    def missing(self) -> int:
        """How many items are still to be done."""
        return len(self._missing)

    @property
    def report_file(self) -> Path:
        """Where the report is written."""
        return self._folder / "report.json"

    def work(self, hands: Hands) -> None:
        """Do what is missing; each hand has one item at a time.

        Raises:
            NoServer: no hand has a ComfyUI that starts.
        """
        free = list(hands.all)
        running: dict[Any, tuple[Any, Item]] = {}
        told = ""
        while self._missing or running:
            while self._missing and free:
                hand, item = free.pop(0), self._missing.popleft()
                running[hands.start(hand, item)] = (hand, item)
            if not running:
                raise NoServer(told)
            reference = hands.next(list(running))
            if reference is None:
                continue
            hand, item = running.pop(reference)
            result = hands.result(reference)
            if result["status"] == NO_HOST:
                # This hand is of no use; the others take its item.
                told = result["error"]
                self._missing.append(item)
                continue
            free.append(hand)
            self._keep(item, result)

    def _keep(self, item: Item, result: dict[str, Any]) -> None:
        told = {"status": result["status"], "attempts": result.get("attempts")}
        if result["status"] == DONE:
            files = write_outputs(self._folder, item, result["outputs"], result["texts"])
            self._results[item.key] = {**told, "files": files}
        else:
            self._results[item.key] = {**told, "files": [], "error": result["error"]}
        self._show(item.name, self._results[item.key])

    def _show(self, name: str, result: dict[str, Any]) -> None:
        if self._quiet:
            return
        done = len(self._results)
        if not sys.stderr.isatty():
            print(
                f"[{done}/{self._all}] {name}: {result.get('error') or result['status']}", file=sys.stderr, flush=True
            )
            return
        filled = BAR * done // max(1, self._all)
        end = "\n" if done == self._all else ""
        line = f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{self._all} {name}"
        print(f"\r{line[:78]:<78}", end=end, file=sys.stderr, flush=True)

    def report(self, workflow: str) -> dict[str, Any]:
        """What became of every item, in their order."""
        entries = [self._entry(item) for item in self._items]
        counts = {kind: sum(entry["status"] == kind for entry in entries) for kind in (DONE, KEPT, FAILED, "missing")}
        seconds = round(time.monotonic() - self._started, 1)
        return {"workflow": workflow, "items_in_all": len(entries), **counts, "seconds": seconds, "items": entries}

    def _entry(self, item: Item | Unusable) -> dict[str, Any]:
        if isinstance(item, Unusable):
            return {"name": item.name, "key": None, "status": FAILED, "files": [], "error": item.error}
        return {"name": item.name, "key": item.key, **self._results.get(item.key, {"status": "missing", "files": []})}

    def write_report(self, report: dict[str, Any]) -> None:
        """Write the report beside the outputs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.report_file.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
