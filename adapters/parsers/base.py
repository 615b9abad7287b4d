"""What every face parser is, and the way from pictures with found faces to faces whose parts are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...faces.crops import picture_numbers
from ...faces.errors import BadImage, BadLandmarks, NoFaceFound
from ...faces.parts import ParsedFaces
from ...faces.templates import template_points
from ...faces.types import FaceBatch, Faces
from ..family import Licence

Progress = Callable[[int, int], None]
FACES_AT_ONCE = 4
# The face of a picture that is itself a crop, as restorers and CelebAMask-HQ cut it.
WHOLE_TEMPLATE = "face_restore_512"


@dataclass(frozen=True, eq=False)
class View:
    """A part of a picture as a parser's network is given it.

    Attributes:
        pixels: (3, R, R) uint8, RGB.
        matrix: (2, 3) float64 from picture to these pixels.
        landmarks5: (5, 2) in these pixels.
        detail: how many pixels of the picture lie under a side of one of these, a whole number, 1 at least.
    """

    pixels: Tensor
    matrix: Tensor
    landmarks5: Tensor
    detail: int


class FaceParser(ABC):
    """Tells the parts of a face. Its weights never change after construction.

    Attributes:
        title: name for users.
        licence: of code and weights.
        parts: names by number of the output channel; 0 is the background.
        resolution: side of the network's pictures.
        needs_points: whether it works only with landmarks5.
        network: the module for the host's memory manager.
        notes: sentences about the loaded weights for the report.
    """

    title: str
    licence: Licence
    parts: tuple[str, ...]
    resolution: int
    needs_points: bool
    network: nn.Module
    notes: tuple[str, ...] = ()

    @abstractmethod
    def view(self, image: Tensor, box: Tensor, landmarks5: Tensor, margin: float) -> View:
        """Cut out what the network needs of a picture (H, W, 3), 0..1, for the face with this box and these points."""

    @abstractmethod
    def whole(self, image: Tensor, landmarks5: Tensor) -> View:
        """The whole picture, which is a crop already."""

    @abstractmethod
    def labels(self, views: Sequence[View]) -> list[Tensor]:
        """Numbers of the parts in each view: (R detail, R detail) uint8 on the CPU."""


def parse_faces(
    parser: FaceParser,
    images: Tensor,
    faces: FaceBatch | None,
    margin: float = 0.0,
    on_progress: Progress | None = None,
) -> ParsedFaces:
    """Parse the faces found in pictures, several at once.

    Args:
        parser: the network.
        images: (B, H, W, 3) RGB, 0..1, the pictures in which the faces were found.
        faces: one entry for each picture; None where every picture is itself the crop of one face.
        margin: share of a crop's side that is added on every side, for parsers that cut by points.
        on_progress: called with (faces done, faces in all) after each chunk; may raise to cancel.

    Raises:
        BadImage: pictures and faces do not belong together.
        BadLandmarks: no faces are given and the parser needs points.
        NoFaceFound: no picture has a face.
    """
    batch = _whole_pictures(parser, images) if faces is None else _checked(images, faces)
    index = picture_numbers(batch)
    boxes, points = (torch.cat(rows) for rows in zip(*((f.boxes, f.landmarks5) for f in batch.images), strict=True))
    matrices: list[Tensor] = []
    labels: list[Tensor] = []
    for start in range(0, len(index), FACES_AT_ONCE):
        rows = range(start, min(start + FACES_AT_ONCE, len(index)))
        if faces is None:
            views = [parser.whole(images[index[row]], points[row]) for row in rows]
        else:
            views = [parser.view(images[index[row]], boxes[row], points[row], margin) for row in rows]
        labels += parser.labels(views)
        matrices += [finer(view.matrix, view.detail) for view in views]
        if on_progress is not None:
            on_progress(rows.stop, len(index))
    return _with_parts(batch, parser, labels, torch.stack(matrices))


def _with_parts(batch: FaceBatch, parser: FaceParser, labels: Sequence[Tensor], matrices: Tensor) -> ParsedFaces:
    return ParsedFaces(
        batch.images,
        batch.image_size,
        batch.detector,
        batch.embedding_encoder,
        (*batch.notes, f"parts by {parser.title} at {parser.resolution}"),
        parts=parser.parts,
        labels=tuple(labels),
        matrices=matrices,
    )


def finer(matrix: Tensor, factor: float) -> Tensor:
    """``matrix`` (2, 3) into pixels ``factor`` times as fine, pixel centres at integers."""
    moved = matrix * factor
    moved[:, 2] += (factor - 1) / 2
    return moved


def _checked(images: Tensor, faces: FaceBatch) -> FaceBatch:
    count, height, width = (int(side) for side in images.shape[:3])
    if (count, (height, width)) != (len(faces), faces.image_size):
        raise BadImage(
            "pictures and faces",
            expected=f"the {len(faces)} pictures of {faces.image_size[1]} x {faces.image_size[0]} pixels in which the "
            "faces were found",
            found=f"{count} of {width} x {height} pixels",
            cure="connect the pictures that went into the face detector",
        )
    if not sum(faces.counts):
        raise NoFaceFound(
            "parse faces", expected="at least one face", found="none", cure="detect faces before, or lower its score"
        )
    return faces


def _whole_pictures(parser: FaceParser, images: Tensor) -> FaceBatch:
    if parser.needs_points:
        raise BadLandmarks(
            parser.title,
            expected="faces with their five points, around which this network bends the picture",
            found="pictures alone",
            cure="connect the faces of Detect Faces",
        )
    height, width = int(images.shape[1]), int(images.shape[2])
    sides = torch.tensor([width, height])
    points = (template_points(WHOLE_TEMPLATE, 1) * sides).float()[None]
    face = Faces(torch.tensor([[0.0, 0.0, width, height]]), points, torch.ones(1))
    note = "each picture taken as the crop of one upright face"
    return replace(FaceBatch((face,) * len(images), (height, width), "user"), notes=(note,))
