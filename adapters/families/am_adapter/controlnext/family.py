"""Recognises ControlNeXt files for SD1.5."""

from __future__ import annotations

import torch

from ....checkpoint import CheckpointHeader, load_strictly, load_tensors
from ....family import Ambiguity, Family, Kind, Match
from ..family import LICENCE, LINKS
from .adapter import ControlNeXtAdapter
from .arch import ControlNeXt

_SHAPES = {
    "embedding.0.weight": (64, 3, 3, 3),
    "down_res.0.conv1.weight": (128, 128, 3, 3),
    "down_res.1.conv_shortcut.weight": (256, 128, 1, 1),
    "mid_convs.0.0.weight": (256, 256, 3, 3),
    "mid_convs.1.weight": (320, 256, 1, 1),
}


class ControlNeXtFamily(Family):
    """A small convolutional network that AM-Adapter gives the segmentation map to."""

    id = "am_adapter_controlnext"
    kind: Kind = "adapter"
    title = "ControlNeXt of AM-Adapter"
    folder = "face_adapters"
    links = (*LINKS, "https://github.com/dvlab-research/ControlNeXt")
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        for name, expected in _SHAPES.items():
            found = header.shape(name)
            if found is None:
                return f"no {name} (ControlNeXt)"
            if found != expected:
                return f"{name} of shape {found}; ControlNeXt for SD1.5 has {expected}"
        return Match(self, None, {"base": "sd15"})

    def build(self, header: CheckpointHeader, match: Match) -> ControlNeXtAdapter:
        with torch.device("meta"):
            network = ControlNeXt()
        network.to(header.tensors["mid_convs.1.weight"].dtype)
        load_strictly(network, load_tensors(header), what=header.path.name)
        return ControlNeXtAdapter(self.describe(header, match), header.digest, network.eval().requires_grad_(False))


FAMILY = ControlNeXtFamily()
