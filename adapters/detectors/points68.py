"""68 points of faces that were found, by dlib's shape predictor: jaw, brows, nose, eyes and mouth in the iBUG order.

dlib owns the weights and runs on its own threads, so there is no module for the host's memory manager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...faces.errors import BadImage
from ...faces.types import FaceBatch
from ..encoders.dlib_resnet.encoder import dlib_files, dlib_modules, dlib_pixels, face_squares

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

        Raises:
            BadImage: as many pictures as the faces are not of.
        """
        if len(images) != len(faces.images):
            raise BadImage(
                "pictures for face points",
                expected=f"the {len(faces.images)} pictures the faces were found in",
                found=f"{len(images)}",
                cure="connect the pictures that Detect Faces got",
            )
        found = []
        for image, one in zip(images, faces.images, strict=True):
            found.append(self._picture(image, one.landmarks5))
            each()
        return found

    def _picture(self, image: Tensor, landmarks5: Tensor) -> Tensor:
        if not len(landmarks5):
            return torch.zeros(0, POINTS, 2)
        pixels = dlib_pixels(image)
        shapes = [self._predictor(pixels, self._dlib.rectangle(*square)) for square in face_squares(landmarks5)]
        return torch.tensor([[(part.x, part.y) for part in shape.parts()] for shape in shapes], dtype=torch.float32)


def load_dlib_points() -> DlibPoints:
    """Load the predictor from the package that carries it.

    Raises:
        MissingPackage: dlib or its models are not installed.
        BadCheckpoint: dlib cannot read the installed model file.
    """
    dlib, models = dlib_modules("the 68 points of a face")
    file = models.pose_predictor_model_location()
    with dlib_files(file):
        return DlibPoints(dlib, dlib.shape_predictor(file))
