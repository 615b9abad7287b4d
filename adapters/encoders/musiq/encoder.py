"""Scores the quality of pictures with MUSIQ."""

from __future__ import annotations

import torch
from torch import Tensor

from ....faces.errors import BadImage
from ...adapter import module_device_dtype
from ...family import Licence
from ..without_faces import EncoderWithoutFaces
from .arch import Musiq
from .patches import PATCH


class MusiqEncoder(EncoderWithoutFaces):
    """MUSIQ with its koniq10k head: from about 0 (badly damaged) to about 80 (flawless). It knows no faces.

    Args:
        network: the network, in float32.
        licence: of code and weights.
        notes: sentences about the file.
    """

    id = "musiq"
    title = "MUSIQ"
    network: Musiq
    does = "scores the quality of pictures"
    belongs_to = "Picture Quality or Apply RestorerID"

    def __init__(self, network: Musiq, licence: Licence, notes: tuple[str, ...] = ()) -> None:
        self.network = network.eval().requires_grad_(False)
        self.licence = licence
        self.notes = notes

    def scores(self, images: Tensor) -> list[float]:
        """One score for each of the pictures (B, H, W, 3), RGB 0..1, in their own size.

        Raises:
            BadImage: pictures smaller than a patch.
        """
        if min(images.shape[1:3]) < PATCH:
            raise BadImage(
                "picture quality",
                expected=f"pictures of at least {PATCH} x {PATCH} pixels",
                found=f"{images.shape[2]} x {images.shape[1]}",
                cure="score the picture before it is made smaller",
            )
        device, dtype = module_device_dtype(self.network)
        with torch.no_grad():
            return [float(self.network(image.to(device, dtype).movedim(-1, 0)[None])) for image in images]
