"""RetinaFace over a batch of pictures, with the constants of ModelScope's pipeline that FaceChain-FACT uses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.boxes import nms
from ....faces.types import Faces
from ...family import Licence
from ..pictures import chunks, home, pixel_values
from .arch import RetinaFace, decode_boxes, decode_points, priors

LICENCE = Licence(
    code="Apache-2.0",
    weights="not stated on a page that could be read",
    commercial=None,
    note="trained on WIDER FACE; look at the hub's card before commercial use",
)
# Pytorch_Retinaface subtracts these from B, G, R; the hub's pipeline feeds R, G, B, and FACT was made with that.
MEANS = (104.0, 117.0, 123.0)
LONGEST_SIDE = 1500
SHRUNK_SIDE = 1000
BEFORE_NMS = 5000
AFTER_NMS = 750
OVERLAP = 0.4
PIXELS_AT_ONCE = 4_000_000


class RetinaFaceDetector:
    """RetinaFace as a ``faces.detect.Detector``; runs where its network is.

    Pictures with a longer side above 1500 are shrunk to 1000 first; boxes and points come back in original pixels.
    (The hub's code then divides the scores by the same factor too, by accident; that is not imitated.)
    """

    name = "retinaface"
    title = "RetinaFace, ResNet-50"
    default_score = 0.9
    licence = LICENCE

    def __init__(self, network: RetinaFace) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Faces of each of the (B, H, W, 3) pictures 0..1, of one size, whose score is above ``score``."""
        found: list[Faces] = []
        for part in chunks(images, PIXELS_AT_ONCE):
            pixels, factor = _limited(pixel_values(part, home(self.network)[0]))
            found.extend(self._detect(pixels, score, factor))
        return found

    def _detect(self, pixels: Tensor, score: float, factor: float) -> list[Faces]:
        device, dtype = home(self.network)
        means = torch.tensor(MEANS, device=device)[:, None, None]
        shifts, scores, points = (value.float() for value in self.network((pixels - means).to(dtype)))
        height, width = pixels.shape[2:]
        anchors = priors(height, width, device)
        size = torch.tensor([width, height], device=device) / factor
        boxes = decode_boxes(shifts, anchors) * size.repeat(2)
        landmarks = decode_points(points, anchors) * size
        return [_faces(*one, score) for one in zip(boxes.cpu(), landmarks.cpu(), scores[..., 1].cpu(), strict=True)]


def _faces(boxes: Tensor, landmarks: Tensor, scores: Tensor, least: float) -> Faces:
    """Threshold, the best 5000, suppression, the best 750."""
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[scores[order] > least][:BEFORE_NMS]
    kept = order[nms(boxes[order], scores[order], OVERLAP, inclusive=True)][:AFTER_NMS]
    return Faces(boxes[kept], landmarks[kept], scores[kept])


def _limited(pixels: Tensor) -> tuple[Tensor, float]:
    """Pictures (B, 3, H, W) with a longer side of at most 1500, and what they were scaled by."""
    longest = max(pixels.shape[2:])
    if longest <= LONGEST_SIDE:
        return pixels, 1.0
    factor = SHRUNK_SIDE / longest
    size = [max(1, round(side * factor)) for side in pixels.shape[2:]]
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False).round_(), factor
