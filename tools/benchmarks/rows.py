"""What a benchmark run gives: rows of ratios, and what was left out with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from likeness_pack.evaluation.benchmark import Ratio

STEP = "step"


@dataclass(frozen=True)
class Row:
    """One ratio of a topic.

    Attributes:
        topic: which part of the project, ``step`` for a sampled model with an adapter.
        family: id of the file's family, or empty.
        subject: what was measured.
        people: number of identities, 0 where that has no meaning.
        measure: the quantity whose ratio it is.
        ratio: the numbers.
    """

    topic: str
    family: str
    subject: str
    people: int
    measure: str
    ratio: Ratio

    def as_text(self) -> str:
        """One line."""
        return f"[{self.topic}] {self.subject}: {self.ratio.as_text()}"

    def as_json(self) -> dict[str, object]:
        """A flat record."""
        place = {"topic": self.topic, "family": self.family, "subject": self.subject, "people": self.people}
        numbers = {"value": self.ratio.value, "low": self.ratio.low, "high": self.ratio.high}
        rounded = {name: round(number, 4) for name, number in numbers.items()}
        return {**place, "measure": self.measure, **rounded, "target": self.ratio.target}


@dataclass(frozen=True)
class NotMeasured:
    """A family or subject without numbers.

    Attributes:
        subject: id of the family, or name of what was left out.
        reason: why, in one sentence.
    """

    subject: str
    reason: str

    def as_text(self) -> str:
        """One line."""
        return f"{self.subject}: not measured here: {self.reason}"


@dataclass(frozen=True)
class Task:
    """How a run measures.

    Attributes:
        folder: an empty folder for files of the run.
        device: ``cpu`` or ``cuda``.
        rounds: paired rounds of each time; every median is of so many.
    """

    folder: Path
    device: str
    rounds: int


Found = Iterator[Row | NotMeasured]
Topic = Callable[[Task], Found]


def rows_of(topic: str, subject: str, measure: str, ratios: list[Ratio], family: str = "") -> Iterator[Row]:
    """Rows that have no number of people."""
    for ratio in ratios:
        yield Row(topic, family, subject, 0, measure, ratio)
