"""Encoders that take pictures or sound, but no faces."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import EncoderMismatch
from .base import FaceEncoder


class EncoderWithoutFaces(FaceEncoder):
    """Loaded like a face encoder, and refused where faces are encoded.

    Attributes:
        does: what it does instead, after "which".
        belongs_to: the nodes that take it.
    """

    does: str
    belongs_to: str

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """Refuse.

        Raises:
            EncoderMismatch: always.
        """
        raise EncoderMismatch(
            "encode identity",
            expected="a face encoder",
            found=f"{self.title}, which {self.does}",
            cure=f"connect it to {self.belongs_to}, and load a face encoder here",
        )
