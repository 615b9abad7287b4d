"""Recognises files of the three adapters, which only this project's own training writes."""

from __future__ import annotations

from dataclasses import replace

import torch

from ....adapter import Adapter, IdentityTokens, TokenOptions
from ....checkpoint import CheckpointHeader, load_strictly, load_tensors
from ....errors import EncoderMismatch
from ....family import Family, Kind, Match
from ....identity import Identity
from ....report import DetectionReport
from ..family import LICENCE
from .arch import FrameAdapters
from .layout import FrameFacts, read_facts, sizes_in


class FrameAdapter(Adapter):
    """The three adapters of a file. They take a voice's factors, not an identity of a face.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: all three.
        facts: the file's metadata.
    """

    network: FrameAdapters

    def __init__(self, report: DetectionReport, digest: str, network: FrameAdapters, facts: FrameFacts) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.facts = facts
        self.base = facts.base
        self.context_dim = network.textual_inversion.context

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse: no node applies these adapters. Raises EncoderMismatch."""
        raise EncoderMismatch(
            self.report.title,
            expected="the factors of a voice, in Python",
            found=f"an identity of the encoder {identity.encoder}",
            cure="choose a face adapter; these three have no node, see their help in the documentation",
        )


class FrameAdaptersFamily(Family):
    """Textual inversion, spatial condition and blending of ImagineID."""

    id = "imagineid_adapters"
    kind: Kind = "adapter"
    title = "ImagineID's three adapters"
    folder = "face_adapters"
    links = ("https://arxiv.org/abs/2403.01901",)
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        return Match(self, None, {"base": header.metadata.get("base", ""), "tokens": sizes.words})

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """The usual facts, and how the file was trained. Raises BadCheckpoint where its metadata do not say so."""
        facts = read_facts(header)
        report = super().describe(header, match)
        return replace(report, notes=(*report.notes, f"trained for {facts.steps} steps on {facts.frames} frames"))

    def build(self, header: CheckpointHeader, match: Match) -> FrameAdapter:
        facts, sizes = read_facts(header), sizes_in(header)
        if isinstance(sizes, str):
            raise EncoderMismatch(header.path.name, expected=self.title, found=sizes, cure="choose another file")
        with torch.device("meta"):
            network = FrameAdapters(sizes)
        load_strictly(network, load_tensors(header), what=header.path.name)
        return FrameAdapter(self.describe(header, match), header.digest, network, facts)


FAMILY = FrameAdaptersFamily()
