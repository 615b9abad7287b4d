"""Recognises and builds TopoFR checkpoints (R50, R100, R200): the residual network together with its class centres."""

from __future__ import annotations

from ...checkpoint import CheckpointHeader
from ...family import Family, Kind, Licence, Match
from .encoder import IResNetEncoder
from .layout import config_of, depth_name, load_network, sizes_of


class TopoFRFamily(Family):
    """The residual network with the class centres that TopoFR's backbone keeps under the name ``weight``."""

    id = "topofr"
    kind: Kind = "encoder"
    title = "TopoFR"
    folder = "face_encoders"
    links = ("https://github.com/modelscope/facechain/tree/main/face_module/TopoFR", "https://arxiv.org/abs/2410.10587")
    licence = Licence(
        code="Apache-2.0 (modelscope/facechain)",
        weights="none stated",
        commercial=None,
        note="trained on MS1MV2 or Glint360K, data for research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_of(header)
        if isinstance(sizes, str):
            return sizes
        if not sizes["classes"]:
            return "no class centres (weight); without them it is an ArcFace network"
        return Match(self, None, sizes)

    def build(self, header: CheckpointHeader, match: Match) -> IResNetEncoder:
        depth = depth_name(config_of(match.hyper).blocks)
        network = load_network(header, match.hyper)
        # Files of one size differ in training data and margin; the note tells their identities apart.
        note = f"encoder file {header.path.name} ({header.digest[:12]}), {match.hyper['classes']} classes"
        return IResNetEncoder(f"topofr_{depth}", f"TopoFR-{depth.upper()}", self.licence, network, (note,))


FAMILY = TopoFRFamily()
