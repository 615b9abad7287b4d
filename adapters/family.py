"""What a family of checkpoints is: it says who it is, recognises its files by keys and shapes, and rebuilds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .checkpoint import CheckpointHeader
from .errors import BadCheckpoint
from .nested import printable
from .report import COMMERCIAL_USE, DetectionReport

Kind = Literal["adapter", "encoder", "detector", "parser", "swapper"]
Hyper = Mapping[str, int | str | float]
# How this project's trainers mark their files: every file, and the weights that come with the pack.
TRAINED, OWN_WEIGHTS, OWN_LICENCE = "finished_steps", "as this project", "Apache-2.0"
# What reading a layout out of shapes raises where the shapes are no such layout at all: a tensor or a dimension that
# is not there, numbers that do not divide, sizes that torch refuses. Anything else is a mistake of ours.
_NO_SUCH_LAYOUT = (KeyError, IndexError, ValueError, ZeroDivisionError, OverflowError, RuntimeError)


@dataclass(frozen=True)
class Licence:
    """Licences of the code a family follows and of its published weights.

    Attributes:
        code: licence of the authors' code.
        weights: licence of the weights, or what is known of it.
        commercial: whether the weights may be used commercially; None where nobody says.
        note: a sentence of explanation.
    """

    code: str
    weights: str
    commercial: bool | None
    note: str = ""

    def lines(self) -> tuple[str, ...]:
        """Both licences and the commercial use as reports show them, one fact per line."""
        return (
            f"code licence: {self.code}",
            f"weight licence: {self.weights}",
            f"commercial use: {COMMERCIAL_USE[self.commercial]}",
        )


@dataclass(frozen=True)
class Match:
    """A recognised file: its family, its variant (None where there is only one) and what shapes tell."""

    family: Family
    variant: str | None
    hyper: Hyper = field(default_factory=dict)


@dataclass(frozen=True)
class Ambiguity:
    """A file of this family whose tensors fit several variants.

    Attributes:
        candidates: the variants that fit.
        why: what could not be told from the tensors.
        hyper: what shapes tell whichever variant it is.
    """

    candidates: tuple[str, ...]
    why: str
    hyper: Hyper = field(default_factory=dict)


class Family(ABC):
    """One published system and its file layouts.

    Attributes:
        id: unique and for ever, such as ``"fact"``.
        kind: what the file is used as.
        title: name for people.
        licence: code and weights.
        links: where the code and the weights are.
        folder: the project's model folder for such files.
        variants: every variant a user may choose; empty where there is only one.
    """

    id: str
    kind: Kind
    title: str
    licence: Licence
    links: tuple[str, ...]
    folder: str
    variants: tuple[str, ...] = ()

    @abstractmethod
    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        """Return a match, the variants that fit, or the reason (a clause) why this is no file of the family."""

    @abstractmethod
    def build(self, header: CheckpointHeader, match: Match) -> Any:
        """Load the file strictly into its network, in evaluation mode, without gradients."""

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """Tell what was recognised, from the header alone.

        ``base``, ``tokens``, ``layers``, ``encode_bytes`` and ``sample_bytes`` come from ``match.hyper`` where it
        has them.
        """
        hyper, licence = match.hyper, licence_of(self, header)
        return DetectionReport(
            family=self.id,
            title=self.title,
            base=str(hyper.get("base", "")),
            tokens=_whole(hyper, "tokens"),
            layers=_whole(hyper, "layers"),
            dtype=main_dtype(header),
            weight_bytes=sum(info.nbytes for info in header.tensors.values()),
            encode_bytes=_whole(hyper, "encode_bytes"),
            sample_bytes=_whole(hyper, "sample_bytes"),
            code_licence=licence.code,
            weight_licence=licence.weights,
            commercial=licence.commercial,
            variant=match.variant,
            notes=(licence.note,) if licence.note else (),
        )


def licence_of(family: Family, header: CheckpointHeader) -> Licence:
    """The family's licence; a file that was trained here is no published one, and has terms of its own."""
    metadata = header.metadata
    if metadata.get("licence") == OWN_WEIGHTS:
        return Licence(family.licence.code, OWN_LICENCE, True, printable(metadata.get("note", "")))
    if TRAINED in metadata:
        return Licence(family.licence.code, "that of whoever trained the file", None)
    return family.licence


def claim(family: Family, header: CheckpointHeader) -> Match | Ambiguity | str:
    """What a family says of a file; a file whose shapes its reading stumbles over is none of its own."""
    try:
        return family.recognise(header)
    except _NO_SUCH_LAYOUT as error:
        _pass_on(error)
        return f"shapes that no file of it has ({_told(error)})"


def rebuild(family: Family, header: CheckpointHeader, match: Match) -> Any:
    """Build a recognised file.

    Raises:
        LikenessError: what the family itself raises.
        BadCheckpoint: shapes or numbers that no file of the family has, where its layout did not foresee them.
    """
    try:
        return family.build(header, match)
    except _NO_SUCH_LAYOUT as error:
        _pass_on(error)
        raise _no_such_layout(family, header, error) from error


def report(family: Family, header: CheckpointHeader, match: Match) -> DetectionReport:
    """Describe a recognised file. Raises BadCheckpoint as `rebuild` does."""
    try:
        return family.describe(header, match)
    except _NO_SUCH_LAYOUT as error:
        _pass_on(error)
        raise _no_such_layout(family, header, error) from error


def _pass_on(error: Exception) -> None:
    """Raise what no file is to blame for: of torch's errors, those of a kind of their own (memory, the device)."""
    if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
        raise error


def _no_such_layout(family: Family, header: CheckpointHeader, error: Exception) -> BadCheckpoint:
    return BadCheckpoint(
        header.path.name,
        expected=f"the shapes of a file of {family.title}",
        found=f"others ({_told(error)})",
        cure="use the publisher's unchanged file",
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()))[:120]}"


def main_dtype(header: CheckpointHeader) -> str:
    """Name of the dtype that most numbers of the file have."""
    counts: Counter[str] = Counter()
    for info in header.tensors.values():
        counts[str(info.dtype).removeprefix("torch.")] += info.count
    return max(counts, key=lambda name: counts[name])


def _whole(hyper: Hyper, name: str) -> int | None:
    return int(hyper[name]) if name in hyper else None
