"""What every face swapper is, and the vector that inswapper's layout is fed with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import EncoderMismatch
from ..identity import EMBEDDING, Identity

if TYPE_CHECKING:
    from ..family import Licence

# All of these networks were trained on embeddings of w600k_r50, the recognition network of this pack.
ENCODER = "arcface_buffalo_l"
EMBEDDING_WIDTH = 512


class FaceSwapper(ABC):
    """Turns aligned faces into another person's. Its weights never change after construction.

    Attributes:
        id: name of the system, written into reports.
        title: name for users.
        licence: of code and weights.
        size: side in pixels of the crops that the network takes.
        template: where the face lies in a crop, a name of `faces.templates`.
        offset: pixels of the crop that the face lies further right and down than the template says.
        network: the module for the host's memory manager, or None where another library owns the weights.
        at_once: crops of one call; None for any number.
        notes: sentences about the loaded weights for the report.
    """

    id: str
    title: str
    licence: Licence
    size: int
    template: str = "arcface_128"
    offset: float = 0.0
    network: nn.Module | None = None
    at_once: int | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def swap(self, crops: Tensor, source: Tensor) -> Tensor:
        """Swap N faces in one call.

        Args:
            crops: (N, 3, size, size) RGB, 0..1, aligned to ``template``.
            source: (N, 512) unit embeddings of `ENCODER`, whom the faces shall become.

        Returns:
            (N, 3, size, size) RGB, 0..1, float32 on the CPU.
        """


def latents(source: Tensor, emap: Tensor) -> Tensor:
    """Return inswapper's vectors (N, 512) of length 1 for embeddings (N, 512) of any length.

    Unit embedding times the file's 512 x 512 map, brought to length 1 again (insightface, inswapper.py). facefusion
    leaves the second step out, which weakens or strengthens a swap from person to person.
    """
    return functional.normalize(functional.normalize(source.float(), dim=-1) @ emap.float(), dim=-1)


def source_embeddings(swapper: FaceSwapper, identity: Identity) -> Tensor:
    """Return the raw embeddings (N, 512) of an identity.

    Raises:
        EncoderMismatch: an encoder whose numbers mean something else to the network, or a row of zeros.
    """
    embedding = identity.features.get(EMBEDDING)
    width = None if embedding is None else int(embedding.shape[-1])
    if embedding is None or identity.encoder != ENCODER or width != EMBEDDING_WIDTH:
        found = "no embedding" if embedding is None else f"embeddings of {width} numbers"
        raise EncoderMismatch(
            swapper.title,
            expected=f"embeddings of {EMBEDDING_WIDTH} numbers of the encoder {ENCODER}",
            found=f"{found} of the encoder {identity.encoder}",
            cure="encode the person with the ArcFace encoder of insightface's pack buffalo_l",
        )
    empty = torch.nonzero(embedding.abs().sum(-1) == 0).flatten().tolist()
    if empty:
        raise EncoderMismatch(
            swapper.title,
            expected="a face in every row of the identity",
            found=f"none in row {', '.join(map(str, empty))}",
            cure='encode the photos with on_missing_face "skip" or "error"',
        )
    return embedding


def describe(swapper: FaceSwapper) -> str:
    """What a loaded swapper is, one fact per line."""
    batch = "any number of faces" if swapper.at_once is None else f"{swapper.at_once} face, as the file fixes it"
    facts = [
        f"swapper: {swapper.title} ({swapper.id})",
        f"crops: {swapper.size} x {swapper.size}, template {swapper.template}",
        f"in one call: {batch}",
        *swapper.licence.lines(),
    ]
    return "\n".join([*facts, *(f"note: {note}" for note in (swapper.licence.note, *swapper.notes) if note)])
