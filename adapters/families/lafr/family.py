"""Recognises files that this project's own LAFR training writes; nobody else publishes any."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...report import DetectionReport
from .adapter import LafrAdapter
from .arch import LatentAlignAdapter
from .layout import read_facts, sizes_in


class LafrFamily(Family):
    """A codebook that aligns the latents of bad pictures with those of good ones."""

    id = "lafr"
    kind: Kind = "adapter"
    title = "LAFR"
    folder = "face_adapters"
    links = ("https://arxiv.org/abs/2505.23462",)
    licence = Licence(
        code="this project's own, after the paper; the authors published none",
        weights="that of whoever trained the file; none is published",
        commercial=None,
        note="trained here, not by the authors: no number of the paper is promised",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        return Match(self, None, {**sizes, "base": header.metadata.get("base", "")})

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """The usual facts, and how the file was trained. Raises BadCheckpoint where its metadata do not say so."""
        facts = read_facts(header, _sizes(match))
        trained = f"{facts.steps} steps on {facts.pictures} pictures of {facts.size} px"
        codes = f"{match.hyper['N']} codes of {match.hyper['d']} numbers"
        report = super().describe(header, match)
        return replace(report, notes=(*report.notes, f"{codes}; {trained}"))

    def build(self, header: CheckpointHeader, match: Match) -> LafrAdapter:
        sizes = _sizes(match)
        facts = read_facts(header, sizes)
        with torch.device("meta"):
            network = LatentAlignAdapter(4, sizes["hidden"], sizes["d"], sizes["N"], sizes["n_res"])
        load_strictly(network, load_tensors(header), what=header.path.name)
        return LafrAdapter(self.describe(header, match), header.digest, network, facts)


def _sizes(match: Match) -> dict[str, int]:
    return {name: int(match.hyper[name]) for name in ("hidden", "d", "N", "n_res")}


FAMILY = LafrFamily()
