"""Whisper as an audio encoder: sound to the states that talking-face systems take."""

from __future__ import annotations

import torch
from torch import Tensor

from ...adapter import module_device_dtype
from ...family import Licence
from ..without_faces import EncoderWithoutFaces
from .arch import WhisperEncoderNetwork, WhisperStates


class WhisperEncoder(EncoderWithoutFaces):
    """Whisper's audio encoder, in float32. It hears and knows no faces.

    Args:
        identifier: ``whisper_tiny`` for the size that the systems use.
        network: the network.
        licence: of code and weights.
        digest: of the file.
        notes: sentences about the file.
    """

    network: WhisperEncoderNetwork
    does = "hears speech"
    belongs_to = "Audio Features"

    def __init__(
        self,
        identifier: str,
        network: WhisperEncoderNetwork,
        licence: Licence,
        digest: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.id = identifier
        self.title = identifier.replace("_", " ").capitalize()
        self.network = network.float().eval().requires_grad_(False)
        self.licence = licence
        self.digest = digest
        self.notes = notes

    def states(self, mel: Tensor) -> WhisperStates:
        """All states of mel spectrograms (B, 80, 3000), float32 on the CPU."""
        device, dtype = module_device_dtype(self.network)
        with torch.no_grad():
            found = self.network(mel.to(device, dtype))
        return WhisperStates(found.raw.float().cpu(), found.final.float().cpu())
