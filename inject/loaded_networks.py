"""Detectors and encoders under the host's care: the values of LIKENESS_DETECTOR and LIKENESS_ENCODER."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..adapters.encoders.base import FaceEncoder
from ..faces.detect import Detector
from ..faces.types import Faces
from .host import stop_if_cancelled
from .kept import Kept
from .managed import ManagedNetwork
from .shared import Shared


class LoadedDetector(Shared):
    """A detector whose network the host's memory manager owns; itself a detector.

    Args:
        detector: any detector of `adapters.detectors`.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.name = detector.name
        self.default_score = detector.default_score
        self.network = detector.network
        self.managed = ManagedNetwork(detector.network) if detector.network is not None else None

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        stop_if_cancelled()
        if self.managed is not None:
            images = images.to(self.managed.load())
        return self.detector(images, score)


class LoadedEncoder(FaceEncoder, Shared):
    """An encoder whose network the host's memory manager owns; itself an encoder.

    Args:
        encoder: any encoder of `adapters.encoders`.
    """

    def __init__(self, encoder: FaceEncoder) -> None:
        self.encoder = encoder
        self.id, self.title, self.licence = encoder.id, encoder.title, encoder.licence
        self.uses_masks, self.unmasked_note, self.notes = encoder.uses_masks, encoder.unmasked_note, encoder.notes
        self.network = encoder.network
        self.managed = ManagedNetwork(encoder.network) if encoder.network is not None else None
        self.made = Kept()

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """As the encoder does, with its network loaded by the host and a stop on cancel before each chunk."""
        stop_if_cancelled()
        if self.managed is not None:
            self.managed.load()
        return self.encoder.encode_faces(images, index, boxes, landmarks5, masks)
