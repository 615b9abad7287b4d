"""Recognises and builds RetinaFace files with a ResNet body (``pytorch_model.pt`` of the hub, Resnet50_Final.pth)."""

from __future__ import annotations

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Match
from .arch import ANCHORS, RetinaFace, Shape
from .detector import LICENCE, RetinaFaceDetector

_LANDMARKS = ("body.conv1.weight", "fpn.output1.0.weight", "ssh1.conv3X3.0.weight", "LandmarkHead.0.conv1x1.weight")


class RetinaFaceFamily(Family):
    """RetinaFace, ResNet body; stem width, depth and pyramid width come from the shapes."""

    id = "retinaface"
    kind = "detector"
    title = "RetinaFace, ResNet-50"
    licence = LICENCE
    links = (
        "https://modelscope.cn/models/iic/cv_resnet50_face-detection_retinaface",
        "https://github.com/biubug6/Pytorch_Retinaface",
    )
    folder = "face_detectors"

    def recognise(self, header: CheckpointHeader) -> Match | str:
        """A match, or why the file is something else."""
        if header.has("body.stage1.0.0.weight", "fpn.output1.0.weight"):
            return "it is a RetinaFace with a MobileNet body; only the ResNet-50 one is supported"
        lacking = [name for name in _LANDMARKS if not header.has(name)]
        if lacking:
            return f"it has no {lacking[0]}"
        heads = header.shape("LandmarkHead.0.conv1x1.weight") or ()
        if heads[:1] != (ANCHORS * 10,):
            return f"its landmark head has shape {heads} instead of {ANCHORS * 10} outputs"
        stem, pyramid = header.shape("body.conv1.weight") or (), header.shape("fpn.output1.0.weight") or ()
        hyper = {f"layer{number}": _depth(header, number) for number in (1, 2, 3, 4)}
        return Match(self, None, {"stem": stem[0], "pyramid": pyramid[0], **hyper})

    def build(self, header: CheckpointHeader, match: Match) -> RetinaFaceDetector:
        """The detector with the file's weights, in evaluation mode."""
        depths = [int(match.hyper[f"layer{number}"]) for number in (1, 2, 3, 4)]
        shape = Shape(
            int(match.hyper["stem"]), (depths[0], depths[1], depths[2], depths[3]), int(match.hyper["pyramid"])
        )
        with torch.device("meta"):
            network = RetinaFace(shape)
        network.to_empty(device="cpu")
        load_strictly(network, load_tensors(header), what=header.path.name)
        return RetinaFaceDetector(network.eval().requires_grad_(False))


def _depth(header: CheckpointHeader, layer: int) -> int:
    return len({name.split(".")[0] for name in header.with_prefix(f"body.layer{layer}.")})


FAMILY = RetinaFaceFamily()
