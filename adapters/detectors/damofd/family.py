"""Recognises and builds DamoFD files with key points (``pytorch_model.pt`` of the hub's 0.5G model)."""

from __future__ import annotations

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import BadCheckpoint
from ...family import Family, Match
from .arch import DamoFD
from .detector import LICENCE, DamoFDDetector
from .layout import shape_of


class DamoFDFamily(Family):
    """DamoFD made of inverted residual blocks, which is the 0.5G size; all widths come from the shapes."""

    id = "damofd"
    kind = "detector"
    title = "DamoFD 0.5G"
    licence = LICENCE
    links = (
        "https://modelscope.cn/models/damo/cv_ddsar_face-detection_iclr23-damofd",
        "https://github.com/ly19965/DamoFD",
    )
    folder = "face_detectors"

    def recognise(self, header: CheckpointHeader) -> Match | str:
        """A match, or why the file is something else."""
        shape = shape_of(header)
        if isinstance(shape, str):
            return shape
        blocks = sum(len(stage) for stage in shape.stages)
        return Match(self, None, {"blocks": blocks, "pyramid": shape.pyramid, "head": shape.head})

    def build(self, header: CheckpointHeader, match: Match) -> DamoFDDetector:
        """The detector with the file's weights, in evaluation mode."""
        shape = shape_of(header)
        if isinstance(shape, str):
            raise BadCheckpoint(header.path.name, expected=self.title, found=shape, cure="choose a file of DamoFD")
        with torch.device("meta"):
            network = DamoFD(shape)
        network.to_empty(device="cpu")
        load_strictly(network, load_tensors(header), what=header.path.name)
        return DamoFDDetector(network.eval().requires_grad_(False))


FAMILY = DamoFDFamily()
