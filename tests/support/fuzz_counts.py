"""How many hostile cases were tried and what became of each, and what a piece of code did to the machine meanwhile."""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SENTENCE = re.compile(r"[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+\.")
LONG = "LIKENESS_ABUSE_LONG"
REPORT = "LIKENESS_ABUSE_REPORT"
SEED = "LIKENESS_ABUSE_SEED"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_ALWAYS = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.system", "os.exec", "os.posix_spawn"}
_ALWAYS |= {"subprocess.Popen", "socket.connect", "socket.getaddrinfo", "shutil.rmtree", "ctypes.dlopen"}


def is_long() -> bool:
    """Whether the long version was asked for."""
    return bool(os.environ.get(LONG))


def how_many(short: int, long: int) -> int:
    """Number of cases of this run."""
    return long if is_long() else short


def dice_of(topic: int) -> random.Random:
    """The dice of a topic; another seed of the run tries other cases."""
    return random.Random(topic + 1000 * int(os.environ.get(SEED, "0")))


@dataclass
class Tally:
    """What became of the cases of one topic.

    Attributes:
        tried: number of cases.
        accepted: cases that were no error, because what arrived was still valid.
        typed: typed errors by class name.
        host: refusals by the host's own validation or nodes.
        untyped: descriptions of anything else; each is a bug.
        facts: further numbers of the topic.
    """

    tried: int = 0
    accepted: int = 0
    typed: Counter[str] = field(default_factory=Counter)
    host: int = 0
    untyped: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "tried": self.tried,
            "accepted": self.accepted,
            "typed_errors": sum(self.typed.values()),
            "typed_errors_by_class": dict(sorted(self.typed.items())),
            "refused_by_the_host": self.host,
            "crashes": len(self.untyped),
            "untyped": self.untyped,
            **self.facts,
        }

    def line(self) -> str:
        """One line of numbers."""
        facts = "".join(f", {name.replace('_', ' ')} {value}" for name, value in self.facts.items())
        return (
            f"cases tried {self.tried}, typed errors {sum(self.typed.values())}, refused by the host {self.host}, "
            f"accepted {self.accepted}, crashes {len(self.untyped)}{facts}"
        )


class Tallies(dict[str, Tally]):
    """A tally by topic, made when it is first asked for."""

    def __missing__(self, topic: str) -> Tally:
        self[topic] = Tally()
        return self[topic]


class Watch:
    """Notes what Python code of this process does beyond reading, while it is on: Python's own audit events tell.

    One hook for the process; a hook can never be taken away, so that it is quiet outside of ``with watch.on(...)``.
    """

    def __init__(self) -> None:
        self._active = False
        self._allowed: Sequence[Path] = ()
        self.deeds: list[str] = []
        sys.addaudithook(self._hook)

    @contextmanager
    def on(self, *allowed: Path) -> Iterator[None]:
        """Watch; writing below one of the ``allowed`` folders is no deed."""
        self._allowed, self._active = allowed, True
        try:
            yield
        finally:
            self._active = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open" and not self._writes(arguments):
            return
        if event == "open" or event in _ALWAYS:
            self._active = False
            told = f"{event} {str(arguments[:2])[:200]}"
            if not self._is_allowed(arguments):
                self.deeds.append(told)
            self._active = True

    def _writes(self, arguments: tuple[Any, ...]) -> bool:
        _, mode, flags = arguments
        return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)

    def _is_allowed(self, arguments: tuple[Any, ...]) -> bool:
        target = arguments[0] if arguments else None
        if not isinstance(target, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(target)
        if "__pycache__" in text or text == os.devnull:
            return True
        return any(Path(text).absolute().is_relative_to(folder) for folder in self._allowed)


def forget_peak() -> bool:
    """Start measuring the highest resident memory of this process anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def memory_mb(process: int | str = "self", field_name: str = "VmRSS") -> float | None:
    """Resident memory of a process in megabytes (VmHWM: the highest); None where the system does not tell."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{field_name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else None


def snapshot(root: Path, *left_out: Path) -> dict[str, int]:
    """Files below a folder, with their sizes, without some sub-folders."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not any(path.is_relative_to(out) for out in left_out)
    }
