"""Clips of persons who are squares of one colour each, and a detector and an encoder that see nothing else.

Colours survive encoding, so that the whole way from file to file can be checked without weights. A dim square counts as
a face that is hard to find.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from likeness_pack.adapters.encoders.base import FaceEncoder
from likeness_pack.adapters.family import Licence
from likeness_pack.adapters.identity import EMBEDDING
from likeness_pack.faces.types import Faces
from swap_standins import faces_at
from torch import Tensor

RED, GREEN, BLUE = 0, 1, 2
# Centre (x, y) of each person of a frame, dim where the third number is 0.
Places = dict[int, tuple[float, float, float]]


def frame_of(places: Places, height: int = 96, width: int = 160, side: int = 16) -> Tensor:
    """(H, W, 3) uint8: grey waves with a square of ``side`` pixels for each person."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grey = (90 + 25 * torch.sin(x / 9) + 20 * torch.cos(y / 7)).round()
    frame = grey[..., None].repeat(1, 1, 3)
    for person, (cx, cy, bright) in places.items():
        top, left = round(cy) - side // 2, round(cx) - side // 2
        colour = torch.full((3,), 20.0)
        colour[person] = 230.0 if bright else 150.0
        frame[max(0, top) : top + side, max(0, left) : left + side] = colour
    return frame.to(torch.uint8)


class ColourDetector:
    """Finds a face around the square of each colour; dim ones score less than its own limit."""

    name, network = "colours", None
    default_score = 0.9

    def __init__(self, size: float = 44.0) -> None:
        self.size = size
        self.looked: list[tuple[int, int, int]] = []

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Note the pictures it was given."""
        self.looked.append((len(images), int(images.shape[1]), int(images.shape[2])))
        return [self._faces(image, score) for image in images]

    def _faces(self, image: Tensor, score: float) -> Faces:
        places = []
        for person in (RED, GREEN, BLUE):
            others = torch.cat([image[..., :person], image[..., person + 1 :]], -1).amax(-1)
            strength = image[..., person] - others
            limit = 0.6 if score >= 0.9 else 0.3
            ys, xs = torch.nonzero(strength > limit, as_tuple=True)
            if len(ys) > 60:
                places.append((float(xs.float().mean()), float(ys.float().mean()), self.size))
        return faces_at(*places) if places else Faces.none()


class ColourEncoder(FaceEncoder):
    """Knows persons by their colour: the embedding (N, 512) is a unit vector of the strongest channel."""

    id, title, licence = "arcface_buffalo_l", "Colours", Licence("MIT", "none", True)

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """One row for each face."""
        rows = []
        for number, points in zip(index, landmarks5, strict=True):
            x, y = points[:, 0].mean().round().long(), points[:, 1].mean().round().long()
            here = images[number, int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].mean((0, 1))
            rows.append(torch.eye(512)[int(here.argmax())] * 20)
        return {EMBEDDING: torch.stack(rows)}
