"""DamoFD over a batch of pictures, with the constants of ModelScope's pipeline that FaceChain uses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.boxes import nms
from ....faces.types import Faces
from ...family import Licence
from ..pictures import chunks, home, pixel_values
from .arch import DamoFD, decode

LICENCE = Licence(
    code="Apache-2.0",
    weights="not stated on a page that could be read",
    commercial=None,
    note="trained on WIDER FACE; look at the hub's card before commercial use",
)
SIDE = 640
MIDDLE, SPREAD = 127.5, 128.0
BEFORE_NMS = 5000
OVERLAP = 0.45
PIXELS_AT_ONCE = 4_000_000


class DamoFDDetector:
    """DamoFD as a ``faces.detect.Detector``; runs where its network is.

    Every picture is scaled to a longer side of 640, up or down, and filled to a square with zeros at the right and
    bottom, as the network was trained; boxes and points come back in original pixels. Values are RGB (ModelScope's
    recognition pipelines feed BGR by accident; that is not imitated).
    """

    name = "damofd"
    title = "DamoFD 0.5G"
    default_score = 0.3
    licence = LICENCE

    def __init__(self, network: DamoFD) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Faces of each of the (B, H, W, 3) pictures 0..1, of one size, whose score is above ``score``."""
        found: list[Faces] = []
        at_once = max(1, PIXELS_AT_ONCE // SIDE**2)
        for part in chunks(images, PIXELS_AT_ONCE):
            for few in part.split(at_once):
                found.extend(self._detect(few, score))
        return found

    def _detect(self, images: Tensor, score: float) -> list[Faces]:
        device, dtype = home(self.network)
        square, scale, limit = fitted(pixel_values(images, device))
        levels = [tuple(value.float() for value in level) for level in self.network(square.to(dtype))]
        boxes, points, scores = decode([(a, b, c) for a, b, c in levels], limit)
        return [
            _faces(*one, score) for one in zip((boxes / scale).cpu(), (points / scale).cpu(), scores.cpu(), strict=True)
        ]


def fitted(pixels: Tensor) -> tuple[Tensor, float, tuple[float, float]]:
    """Scale pictures (B, 3, H, W) 0..255 into the square.

    Returns:
        (B, 3, 640, 640) ``(v - 127.5) / 128`` with zeros beside the picture, the scale, and the picture's
        (width, height) inside.
    """
    height, width = pixels.shape[2:]
    scale = SIDE / max(height, width, 1)
    size = [max(1, int(side * scale + 0.5)) for side in (height, width)]
    small = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    normal = (small - MIDDLE) / SPREAD
    square = functional.pad(normal, (0, SIDE - size[1], 0, SIDE - size[0]))
    return square, scale, (float(size[1]), float(size[0]))


def _faces(boxes: Tensor, points: Tensor, scores: Tensor, least: float) -> Faces:
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[scores[order] > least][:BEFORE_NMS]
    kept = order[nms(boxes[order], scores[order], OVERLAP)]
    return Faces(boxes[kept], points[kept], scores[kept])
