"""A real server with hostile nodes beside ours, and what its answers say."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_counts import SENTENCE, Tally, memory_mb, snapshot
from host_process import PACK_FOLDER
from server_fixtures import Server

SOURCES = Path(__file__).with_name("fuzz_nodes.py")


@dataclass(frozen=True)
class Outcome:
    """How a queued graph ended: ``finished``, ``refused`` (by validation), ``error`` or ``interrupted``."""

    kind: str
    text: str = ""
    error: dict[str, Any] | None = None

    @property
    def ours(self) -> bool:
        """Whether our code took part in an error."""
        error = self.error or {}
        trace = "".join(error.get("traceback") or [])
        return str(error.get("node_type", "")).startswith("Likeness") or PACK_FOLDER in trace

    @property
    def typed(self) -> bool:
        """Whether an error is one of ours, told in one sentence."""
        error = self.error or {}
        module = str(error.get("exception_type", ""))
        is_ours = PACK_FOLDER in module or "likeness" in module.lower()
        return is_ours and bool(SENTENCE.fullmatch(str(error.get("exception_message", "")).strip()))


class AbuseServer(Server):
    """A server with the nodes of `fuzz_nodes`; its folders are looked after."""

    def __init__(self, base: Path) -> None:
        base.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(base)
        target = self.base / "custom_nodes" / "fuzz_nodes"
        target.mkdir()
        shutil.copyfile(SOURCES, target / "__init__.py")

    def send(self, body: bytes, timeout: float = 120.0) -> tuple[int, bytes]:
        """POST raw bytes to /prompt; the status and the answer."""
        request = urllib.request.Request(f"{self.url}/prompt", data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def outcome(self, prompt: Any, timeout: float = 300.0) -> Outcome:
        """Queue a graph and wait for its end."""
        body = json.dumps({"prompt": prompt, "client_id": self.client_id}).encode()
        status, answer = self.send(body)
        if status != 200:
            return Outcome("refused", f"{status} {answer[:2000].decode(errors='replace')}")
        number = str(json.loads(answer)["prompt_id"])
        return self.ended(number, timeout)

    def ended(self, number: str, timeout: float = 300.0) -> Outcome:
        """Wait for a queued graph's end."""
        from host_process import HostFailed

        try:
            self.wait(number, timeout)
        except HostFailed as failure:
            entry = self.get(f"/history/{number}").get(number)
            if entry is None:
                return Outcome("lost", str(failure))
            for name, details in entry["status"].get("messages") or []:
                if name == "execution_error":
                    return Outcome("error", str(failure), dict(details))
            return Outcome("interrupted", str(failure))
        return Outcome("finished")

    def judge(self, outcome: Outcome, tally: Tally, told: str) -> None:
        """Count how a graph ended; untyped exceptions in which our code took part are written down."""
        tally.tried += 1
        if outcome.kind == "finished":
            tally.accepted += 1
        elif outcome.kind in ("lost", "interrupted"):
            tally.untyped.append(f"{told}: {outcome.kind} {outcome.text[-500:]}")
        elif outcome.kind == "error" and outcome.typed:
            tally.typed[str((outcome.error or {})["exception_type"]).rpartition(".")[2]] += 1
        elif outcome.kind == "error" and outcome.ours:
            trace = "".join((outcome.error or {}).get("traceback") or [])[-600:]
            tally.untyped.append(f"{told}: {outcome.text[:400]}\n{trace}")
        else:
            tally.host += 1

    @property
    def memory(self) -> float | None:
        """Resident memory of the server in megabytes."""
        return memory_mb(self.pid or "self")

    def files_outside(self) -> dict[str, int]:
        """Files of the base folder, and beside it, that no run may add to or change."""
        root = self.base.parent
        free = ("output", "temp", "user", "host.log", "custom_nodes/__pycache__")
        return snapshot(root, *(self.base / name for name in free))
