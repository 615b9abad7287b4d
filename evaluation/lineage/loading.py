"""What a loader says beside the file's own licence: base model, and what holds for it together with what it needs."""

from __future__ import annotations

from pathlib import Path

from ...adapters.checkpoint import read_header
from ...adapters.model_table import published_files
from ...adapters.report import DetectionReport
from . import checks
from .checks import Part
from .licences import drift_parents
from .model_card import BadModelCard, ModelCard, card_beside, plain, read_card


def licence_lines(path: Path, report: DetectionReport) -> str:
    """Lines for a loader's report, from the file's header, the card beside it and the table of files, without hashing.

    Args:
        path: the file.
        report: what was recognised in it.
    """
    header = read_header(path)
    try:
        card = read_card(card_beside(path))
    except BadModelCard:
        card = ModelCard()
    own = card.licence or header.metadata.get("modelspec.license") or report.weight_licence
    needed = [row for row in published_files() if report.family in row.needed_by]
    parts = [Part(plain(row.file), row.weight_licence) for row in needed]
    findings = [
        checks.lineage(header.metadata, card),
        checks.architecture(header),
        checks.drift(own, drift_parents(report.base)),
        checks.at_run_time([Part(plain(path.name), own), *parts]),
    ]
    return "\n".join(f"{one.check}: {one.text}" for one in findings)
