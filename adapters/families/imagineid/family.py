"""Recognises files of voice factors that this project's own training writes; nobody else publishes any."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from ...report import DetectionReport
from .arch import FactorSizes, VoiceFactors
from .encoder import FactorEncoder
from .layout import ORIGIN, FactorFacts, read_facts, sizes_in

LICENCE = Licence(
    code="this project's own, after the paper; the authors published none",
    weights="that of whoever trained the file; none is published",
    commercial=None,
    note=f"{ORIGIN}; no number of the paper is promised",
)


class ImagineIDFamily(Family):
    """Identity, content and emotion of a voice."""

    id = "imagineid"
    kind: Kind = "encoder"
    title = "ImagineID voice factors"
    folder = "face_encoders"
    links = ("https://arxiv.org/abs/2403.01901",)
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_in(header)
        return sizes if isinstance(sizes, str) else Match(self, None, asdict(sizes))

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """The usual facts, and how the file was trained. Raises BadCheckpoint where its metadata do not say so."""
        report = super().describe(header, match)
        return replace(report, notes=(*report.notes, *_told(read_facts(header))))

    def build(self, header: CheckpointHeader, match: Match) -> FactorEncoder:
        facts = read_facts(header)
        with torch.device("meta"):
            network = VoiceFactors(FactorSizes(**{name: int(value) for name, value in match.hyper.items()}))
        load_strictly(network, load_tensors(header), what=header.path.name)
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return FactorEncoder(network, self.licence, header.digest, facts, (note, *_told(facts)))


def _told(facts: FactorFacts) -> tuple[str, ...]:
    labels = f"{facts.voices} voices, {facts.emotions} emotions and {facts.contents} contents"
    steps = f"{facts.steps_identity}, {facts.steps_content} and {facts.steps_emotion} steps"
    trained = f"trained on {facts.clips} clips of {labels}; identity, content and emotion for {steps}"
    return (trained, f"held out: {facts.probe}") if facts.probe else (trained,)


FAMILY = ImagineIDFamily()
