"""Recognises and builds FLR checkpoints (flr_r50_vgg_face.pth and its like); of them only the body is read."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from .arch import FaceRepresentation, ReprConfig
from .encoder import FaceRepresentationEncoder

BODY = "base_net."
LAYERS = ("layer1", "layer2", "layer3", "layer4")
_BLOCK = ("conv1", "conv2", "conv3", "bn3", "downsample.0")
NEEDED = ("conv1.weight", "bn1.weight", *(f"{layer}.0.{part}.weight" for layer in LAYERS for part in _BLOCK))
DEPTHS = {(3, 4, 6, 3): "r50", (3, 4, 23, 3): "r101", (3, 8, 36, 3): "r152"}
PURPOSE = "describes a face without naming it: for attributes and for comparing faces, not for adapters"


class FaceRepresentationFamily(Family):
    """ResNet with bottlenecks under ``base_net.``; projection, prototypes and the trainer's state are not read."""

    id = "face_representation"
    kind: Kind = "encoder"
    title = "FLR face representation"
    folder = "face_encoders"
    links = ("https://github.com/1adrianb/unsupervised-face-representation", "https://arxiv.org/abs/2103.16554")
    licence = Licence(code="MIT", weights="none stated", commercial=None, note="trained on VGGFace2, data for research")

    def recognise(self, header: CheckpointHeader) -> Match | str:
        missing = [name for name in NEEDED if not header.has(BODY + name)]
        if missing:
            return f"no {BODY}{missing[0]}"
        stem = header.shape(f"{BODY}conv1.weight") or ()
        last = header.shape(f"{BODY}layer4.0.conv3.weight") or ()
        if len(stem) != 4 or stem[1:] != (3, 7, 7) or last[:1] != (32 * stem[0],):
            return f"{BODY}conv1.weight {stem} and layer4.0.conv3.weight {last} are not those of a bottleneck ResNet"
        blocks = {
            layer: len({name.split(".")[0] for name in header.with_prefix(f"{BODY}{layer}.")}) for layer in LAYERS
        }
        return Match(self, None, {"stem": stem[0], "width": last[0], **blocks})

    def build(self, header: CheckpointHeader, match: Match) -> FaceRepresentationEncoder:
        first, second, third, fourth = blocks = tuple(int(match.hyper[layer]) for layer in LAYERS)
        with torch.device("meta"):
            network = FaceRepresentation(ReprConfig(int(match.hyper["stem"]), (first, second, third, fourth)))
        network.to_empty(device="cpu")
        names = {name: raw for name, raw in header.raw_names.items() if name.startswith(BODY)}
        tensors = load_tensors(replace(header, raw_names=MappingProxyType(names)))
        load_strictly(network, tensors, what=header.path.name)
        depth = DEPTHS.get((first, second, third, fourth), "x".join(map(str, blocks)))
        notes = (PURPOSE, f"encoder file {header.path.name} ({header.digest[:12]})")
        return FaceRepresentationEncoder(f"flr_{depth}", f"FLR {depth.upper()}", self.licence, network, notes)


FAMILY = FaceRepresentationFamily()
