"""Recognises and builds ArcFace residual networks: arcface_torch's ``backbone.pth`` and converted ONNX files."""

from __future__ import annotations

import re

from ...checkpoint import CheckpointHeader
from ...family import Family, Kind, Licence, Match
from ..topofr.encoder import IResNetEncoder
from ..topofr.layout import config_of, depth_name, load_network, sizes_of

# Written by the converter, since no tensor shows the training data that set these networks apart for an adapter.
ENCODER_ID = "likeness.encoder_id"
SOURCE = "likeness.source"
LEGAL_ID = re.compile(r"arcface_[a-z0-9_]{1,40}")
LICENCE = Licence(
    code="MIT",
    weights="non-commercial research only (insightface model zoo)",
    commercial=False,
    note="a network that someone else trained has its own licence",
)


class ArcFaceIResNetFamily(Family):
    """The residual network without class centres."""

    id = "arcface_iresnet"
    kind: Kind = "encoder"
    title = "ArcFace IResNet"
    folder = "face_encoders"
    links = (
        "https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch",
        "https://github.com/deepinsight/insightface/tree/master/model_zoo",
    )
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_of(header)
        if isinstance(sizes, str):
            return sizes
        if sizes["classes"]:
            return f"it has {sizes['classes']} class centres (weight), as TopoFR keeps them"
        return Match(self, None, sizes)

    def build(self, header: CheckpointHeader, match: Match) -> IResNetEncoder:
        depth = depth_name(config_of(match.hyper).blocks)
        told = header.metadata.get(ENCODER_ID, "")
        identifier = told if LEGAL_ID.fullmatch(told) else f"arcface_iresnet_{depth}"
        title = f"ArcFace {identifier.removeprefix('arcface_')} ({depth.upper()} in torch)"
        source = header.metadata.get(SOURCE)
        # Files of one size differ in training data; the note tells their identities apart.
        note = f"encoder file {header.path.name} ({header.digest[:12]})" + (f", made of {source}" if source else "")
        return IResNetEncoder(identifier, title, self.licence, load_network(header, match.hyper), (note,))


FAMILY = ArcFaceIResNetFamily()
