"""Recognises DreamID files that this project's own training writes; nobody else published any."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...report import DetectionReport
from ..dreamfit.adapter import reduced
from .adapter import DreamIdAdapter
from .arch import DreamIdNetwork
from .layout import FACENET, PARTS, SWAPNET, Sizes, check_unets, read_facts, sizes_in

BASE = "sd21"


class DreamIdFamily(Family):
    """Two UNets of Stable Diffusion 2.1's layout, identity tokens and a pose guider."""

    id = "dreamid"
    kind: Kind = "adapter"
    title = "DreamID"
    folder = "face_adapters"
    links = ("https://arxiv.org/abs/2504.14509", "https://github.com/superhero-7/DreamID")
    licence = Licence(
        code="this project's own, after the paper; the authors published none",
        weights="that of whoever trained the file, and of the base model; none is published",
        commercial=None,
        note="trained here, not by the authors: no number of the paper is promised",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        small = sum(info.nbytes for part in PARTS for info in header.with_prefix(part).values())
        rest = sum(info.nbytes for info in header.tensors.values()) - small
        estimates = {"encode_bytes": small + rest // 2, "sample_bytes": rest // 2}
        return Match(self, None, {"base": BASE, "tokens": sizes.tokens, "layers": len(sizes.widths), **estimates})

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """The usual facts, and how the file was trained. Raises BadCheckpoint where its metadata do not say so."""
        facts = read_facts(header, _sizes(header))
        timesteps = ", ".join(map(str, facts.timesteps))
        notes = (
            f"trained {facts.steps} steps on {facts.triplets} triplets of {facts.size} px, from {facts.base}",
            f"timesteps {timesteps} ({facts.prediction} prediction); landmark pictures of {facts.points} points",
            f"prompt: {facts.prompt}; face encoder: {facts.face_encoder}",
        )
        report = super().describe(header, match)
        return replace(report, notes=(*report.notes, *notes))

    def build(self, header: CheckpointHeader, match: Match) -> DreamIdAdapter:
        sizes = _sizes(header)
        facts = read_facts(header, sizes)
        check_unets(header, sizes)
        rest = {name: name for name in header.tensors if not name.startswith((SWAPNET, FACENET))}
        tensors = load_tensors(reduced(header, rest))
        with torch.device("meta"):
            network = DreamIdNetwork(
                sizes.embedding, sizes.tokens, sizes.context, sizes.widths, sizes.guider, sizes.levels[0]
            )
        network.to(next(iter(tensors.values())).dtype)
        load_strictly(network, tensors, what=header.path.name)
        return DreamIdAdapter(self.describe(header, match), header, network, facts, sizes)


def _sizes(header: CheckpointHeader) -> Sizes:
    sizes = sizes_in(header)
    assert isinstance(sizes, Sizes), sizes
    return sizes


FAMILY = DreamIdFamily()
