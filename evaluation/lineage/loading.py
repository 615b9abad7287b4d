"""What a loader says beside the file's own licence: base model, and what holds for it together with what it needs."""

from __future__ import annotations

from pathlib import Path

from ...adapters.checkpoint import CheckpointHeader, read_header
from ...adapters.family import OWN_WEIGHTS
from ...adapters.model_spec import stated_licence
from ...adapters.model_table import published_files
from ...adapters.report import DetectionReport
from . import checks
from .checks import Part
from .licences import drift_parents
from .model_card import BadModelCard, ModelCard, card_beside, plain, read_card

DETECTORS, ENCODERS = "face_detectors", ("face_encoders", "insightface")


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
    own = card.licence or stated_licence(header.metadata) or report.weight_licence
    # The small weights of the pack stand on a base model of the pack.
    parents = [] if header.metadata.get("licence") == OWN_WEIGHTS else drift_parents(report.base)
    base = [Part(f"base model {report.base}", licence) for licence in parents]
    findings = [
        checks.lineage(header.metadata, card),
        checks.architecture(header),
        checks.drift(own, parents),
        checks.at_run_time([Part(plain(path.name), own), *base, *_needed(header, report)]),
    ]
    return "\n".join(f"{one.check}: {one.text}" for one in findings)


def _needed(header: CheckpointHeader, report: DetectionReport) -> list[Part]:
    """What the adapter needs beside the base model. Any detector will do; a file trained here names its encoder."""
    rows = [row for row in published_files() if row.is_needed_by(report.family, report.variant)]
    own_encoder = header.metadata.get("encoder")
    without = (DETECTORS,) if own_encoder is None else (DETECTORS, *ENCODERS)
    parts = [Part(plain(row.file), row.weight_licence) for row in rows if row.folder not in without]
    return parts if own_encoder is None else [*parts, Part(f"face encoder {plain(own_encoder)}", None)]
