"""SegFace over faces of pictures: cut, normalised, parsed in a batch, logits enlarged to the picture's own detail."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor
from torch.nn import functional

from ...detectors.pictures import home
from ...family import Licence
from ..base import FaceParser, View
from .arch import SegFace
from .labels import labels_of
from .tanh_warp import TanhWarp
from .views import aligned, helen_region, lapa_region, squashed

MEAN = (0.485, 0.456, 0.406)
SPREAD = (0.229, 0.224, 0.225)


class SegFaceParser(FaceParser):
    """A parser of one label set; runs where its network is, in float32.

    Args:
        network: the network with its weights.
        label_set: ``"celeba"``, ``"lapa"`` or ``"helen"``; it decides what the network is shown.
        resolution: side of the pictures the file was trained with, a multiple of 32.
        title: name for users.
        licence: of code and weights.
        notes: for the report.
    """

    def __init__(
        self,
        network: SegFace,
        label_set: str,
        resolution: int,
        title: str,
        licence: Licence,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.network = network
        self.label_set, self.resolution, self.title = label_set, resolution, title
        self.licence, self.notes = licence, notes
        self.parts = tuple(label.name for label in labels_of(label_set))
        self.needs_points = label_set == "lapa"

    def at(self, resolution: int) -> SegFaceParser:
        """The same network for pictures of another side."""
        other = copy(self)
        other.resolution = resolution
        return other

    def view(self, image: Tensor, box: Tensor, landmarks5: Tensor, margin: float) -> View:
        """CelebAMask-HQ: aligned crop; Helen: square about the face; LaPa: the face with its surroundings."""
        if self.label_set == "celeba":
            return aligned(image, landmarks5, margin, self.resolution)
        region = helen_region if self.label_set == "helen" else lapa_region
        return squashed(image, region(box, image.shape[0], image.shape[1]), landmarks5, self.resolution)

    def whole(self, image: Tensor, landmarks5: Tensor) -> View:
        """The whole picture, stretched to a square."""
        return squashed(image, (0, 0, image.shape[1], image.shape[0]), landmarks5, self.resolution)

    @torch.inference_mode()
    def labels(self, views: Sequence[View]) -> list[Tensor]:
        """Numbers of the parts in each view: (R detail, R detail) uint8 on the CPU."""
        logits = self.logits(views)
        found = []
        for each, view in zip(logits, views, strict=True):
            size = self.resolution * view.detail
            if size != each.shape[-1]:
                each = functional.interpolate(each[None], size=(size, size), mode="bilinear", align_corners=False)[0]
            found.append(each.argmax(0).to(torch.uint8).cpu())
        return found

    def logits(self, views: Sequence[View]) -> Tensor:
        """(V, N, R, R) on the network's device."""
        device, dtype = home(self.network)
        images = normalised(torch.stack([view.pixels for view in views]).to(device)).to(dtype)
        if self.label_set != "lapa":
            return self.network(images).float()
        way = TanhWarp(torch.stack([view.landmarks5 for view in views]), self.resolution)
        return way.unwarp(self.network(way.warp(images)).float())


def normalised(pixels: Tensor) -> Tensor:
    """(B, 3, R, R) uint8 -> float32 with the mean and spread of ImageNet."""
    mean, spread = (torch.tensor(values, device=pixels.device).reshape(1, 3, 1, 1) for values in (MEAN, SPREAD))
    return (pixels.float() / 255 - mean) / spread
