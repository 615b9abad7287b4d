"""The values that travel through a graph: the faces of one picture and of a batch of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import BadLandmarks


@dataclass(frozen=True, eq=False)
class Faces:
    """The F faces of one picture, best score first unless a selection ordered them otherwise.

    Attributes:
        boxes: (F, 4) float32, ``x1 y1 x2 y2`` in pixels.
        landmarks5: (F, 5, 2) float32 pixels: eye centre on the image's left, eye centre on its right, nose tip,
            mouth corner on the image's left, mouth corner on its right.
        scores: (F,) float32, 0..1.
        embeddings: (F, D) float32 as the encoder gives them (not normalised), or None.
    """

    boxes: Tensor
    landmarks5: Tensor
    scores: Tensor
    embeddings: Tensor | None = None

    def __post_init__(self) -> None:
        count = self.boxes.shape[0]
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.landmarks5.shape != (count, 5, 2):
            raise BadLandmarks(
                "faces",
                expected="boxes (F, 4), scores (F,) and landmarks5 (F, 5, 2) of the same F",
                found=f"{tuple(self.boxes.shape)}, {tuple(self.scores.shape)} and {tuple(self.landmarks5.shape)}",
                cure="give five points (two eye centres, nose tip, two mouth corners) for every box",
            )

    def __len__(self) -> int:
        return int(self.boxes.shape[0])

    def take(self, indices: Sequence[int]) -> Faces:
        """Return the faces at ``indices``, in that order."""
        index = torch.as_tensor(list(indices), dtype=torch.long)
        return Faces(
            self.boxes[index],
            self.landmarks5[index],
            self.scores[index],
            None if self.embeddings is None else self.embeddings[index],
        )

    @staticmethod
    def none() -> Faces:
        """The faces of a picture that has none."""
        return Faces(torch.zeros(0, 4), torch.zeros(0, 5, 2), torch.zeros(0))


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """The faces of a batch of B pictures of one size; the value of the socket LIKENESS_FACES.

    Attributes:
        images: one `Faces` for each picture, in batch order; a picture without a face has an empty one.
        image_size: (height, width) of the pictures in pixels.
        detector: name of what found them, or ``"user"``.
        embedding_encoder: id of the encoder that made the embeddings, or None where there are none.
        notes: sentences for the report, such as the size at which a retry found a face.
    """

    images: tuple[Faces, ...]
    image_size: tuple[int, int]
    detector: str
    embedding_encoder: str | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of faces in each picture."""
        return tuple(len(faces) for faces in self.images)

    def with_images(self, images: Sequence[Faces], *notes: str) -> FaceBatch:
        """Return a copy with other faces and further notes."""
        return replace(self, images=tuple(images), notes=self.notes + notes)
