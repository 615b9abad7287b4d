"""The report on one model file: every check, whether all is well, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...adapters.checkpoint import CheckpointHeader
from ...adapters.file_hash import OnBlock, file_sha256
from ...adapters.model_spec import stated_licence
from . import checks
from .checks import Finding, Part
from .hashes import data_sha256, legacy_hash
from .licences import normalised
from .model_card import ModelCard, plain, read_card

_MARKS = {"warning": "!", "note": "-", "info": " "}


@dataclass(frozen=True)
class LineageReport:
    """What was found out about a file.

    Attributes:
        file: its name.
        licence: of the file as it says itself, or None.
        findings: in the order of the checks.
    """

    file: str
    licence: str | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check warns."""
        return all(one.severity != "warning" for one in self.findings)

    def as_text(self) -> str:
        """One line for each finding."""
        lines = [f"{self.file}: licence {self.licence or 'unstated'}, {'ok' if self.ok else 'see the warnings'}"]
        return "\n".join([*lines, *(f"{_MARKS[one.severity]} {one.check}: {one.text}" for one in self.findings)])

    def as_json(self) -> str:
        """The same for programs."""
        rows = [{"check": one.check, "severity": one.severity, "text": one.text} for one in self.findings]
        facts = {"file": self.file, "licence": self.licence, "ok": self.ok, "findings": rows}
        return json.dumps(facts, ensure_ascii=False, indent=1)


def check_file(
    header: CheckpointHeader,
    card_text: str = "",
    *,
    base: Path | None = None,
    base_licences: Sequence[str] = (),
    parts: Sequence[Part] = (),
    on_block: OnBlock | None = None,
) -> LineageReport:
    """Check one file.

    Args:
        header: of the file.
        card_text: its model card, or "".
        base: the base model's file, whose hash is compared with the one the file names; a large one takes a while.
        base_licences: licences of the base models, where known.
        parts: what is needed beside it when it runs.
        on_block: called while files are hashed; may raise to stop.

    Raises:
        BadModelCard: a card that cannot be read.
    """
    card = read_card(card_text) if card_text.strip() else None
    metadata, known = header.metadata, card or ModelCard()
    licence = known.licence or normalised(stated_licence(metadata))
    findings = [
        checks.lineage(metadata, known),
        checks.drift(licence, base_licences),
        checks.informative(card),
        checks.architecture(header),
        *(Finding("model card", "note", note) for note in known.notes),
    ]
    if base is not None:
        findings.append(checks.base_file(metadata, file_sha256(base, on_block=on_block), legacy_hash(base)))
    if header.container == "safetensors":
        findings.append(checks.data_hash(metadata, data_sha256(header.path, on_block)))
    else:
        findings.append(Finding("container", "note", "a pickle file: no metadata, read without running anything"))
    emitted = checks.carbon(known)
    findings += [emitted] if emitted else []
    findings.append(checks.at_run_time([Part(plain(header.path.name), licence), *parts]))
    return LineageReport(plain(header.path.name), licence, tuple(findings))
