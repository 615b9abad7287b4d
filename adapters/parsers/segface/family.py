"""Recognises and builds SegFace files (``model_299.pt`` of every published folder)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import BadCheckpoint
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...report import DetectionReport
from .arch import SegFace
from .labels import LABEL_SETS, labels_of
from .layout import label_sets_of, model_of, shape_of
from .parser import SegFaceParser

# Size of the pictures a file was trained with; files do not hold it, converted ones may.
RESOLUTION = "likeness.resolution"
DEFAULT_RESOLUTION = 512
_NEVER_READ = "the norm after Swin's last tap, which the published network keeps and never reads"
UNUSED = {"backbone.1.weight": _NEVER_READ, "backbone.1.bias": _NEVER_READ}
_TITLES = {
    "swin": "Swin",
    "swin_v2": "Swin V2",
    "convnext": "ConvNeXt",
    "resnet": "ResNet",
    "mobilenet": "MobileNetV3",
    "efficientnet": "EfficientNetV2",
}
_DATA = {"celeba": "CelebAMask-HQ", "lapa": "LaPa", "helen": "Helen"}


class SegFaceFamily(Family):
    """All backbones and label sets; the trainer's optimizer in the same file is never read."""

    id = "segface"
    kind: Kind = "parser"
    title = "SegFace"
    folder = "face_parsers"
    links = ("https://github.com/Kartik-3004/SegFace", "https://huggingface.co/kartiknarayan/SegFace")
    licence = Licence(
        code="MIT",
        weights="MIT",
        commercial=None,
        note="trained on CelebAMask-HQ, LaPa or Helen, whose pictures are for non-commercial research",
    )
    variants = LABEL_SETS

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        """A match, both label sets of eleven parts, or why the file is something else."""
        _, model = model_of(header.tensors)
        shape = shape_of(model)
        if isinstance(shape, str):
            return shape
        sets = label_sets_of(model)
        if not sets:
            return "tokens of no known label set"
        hyper = {"backbone": shape.backbone, "parts": len(labels_of(sets[0]))}
        if len(sets) == 1:
            return Match(self, sets[0], hyper)
        return Ambiguity(sets, "both have the same eleven parts; the publisher's folder is named after the set", hyper)

    def build(self, header: CheckpointHeader, match: Match) -> SegFaceParser:
        """The parser with the file's weights, in evaluation mode."""
        prefix, model = model_of(header.tensors)
        shape = shape_of(model)
        if isinstance(shape, str) or match.variant is None:
            raise BadCheckpoint(header.path.name, expected=self.title, found=str(shape), cure="choose another file")
        labels = labels_of(match.variant)
        with torch.device("meta"):
            network = SegFace(shape, labels)
        network.to_empty(device="cpu")
        load_strictly(network, load_tensors(header, prefix), what=header.path.name, ignorable=UNUSED)
        return SegFaceParser(
            network=network.eval().requires_grad_(False),
            label_set=match.variant,
            resolution=_resolution(header),
            title=f"SegFace {_TITLES[shape.backbone]} {_DATA[match.variant]}",
            licence=self.licence,
            notes=(f"parser file {header.path.name} ({header.digest[:12]})",),
        )

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """As every family does, of the network's own tensors; what the trainer left beside them is told apart."""
        _, model = model_of(header.tensors)
        told = super().describe(replace(header, tensors=model), match)
        beside = sum(info.nbytes for info in header.tensors.values()) - told.weight_bytes
        if not beside:
            return told
        return replace(told, notes=(*told.notes, f"{beside / 1e6:.1f} MB of the trainer's state are not read"))


def _resolution(header: CheckpointHeader) -> int:
    told = header.metadata.get(RESOLUTION, "")
    return int(told) if told.isdecimal() and 0 < int(told) <= 4096 else DEFAULT_RESOLUTION


FAMILY = SegFaceFamily()
