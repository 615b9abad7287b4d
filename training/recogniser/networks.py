"""Small face encoders of the two published kinds, begun as their trainers begin them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...adapters.encoders.topofr.arch import IResNet, IResNetConfig
from ...adapters.encoders.transface.arch import TransFace, TransFaceConfig, TransFaceOutput
from ..checkpointing import write_model
from ..seeds import generator_for

Kind = Literal["transformer", "resnet"]
_CENTRES, _LINEAR, _POSITIONS = 0.01, 0.02, 0.02


class Recogniser(nn.Module):
    """A face encoder and the centres of the classes it learns.

    Attributes:
        encoder: the network whose weights a user wants.
        centres: (K, E) one direction for each person.
    """

    def __init__(self, encoder: TransFace | IResNet, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.centres = nn.Parameter(torch.zeros(classes, encoder.config.embedding))

    def forward(self, images: Tensor) -> TransFaceOutput | Tensor:
        """What the encoder says about (B, 3, 112, 112)."""
        return self.encoder(images)

    def embeddings(self, images: Tensor) -> Tensor:
        """(B, E), not normalised."""
        found = self.encoder(images)
        return found.embedding if isinstance(found, TransFaceOutput) else found


def small_recogniser(kind: Kind, classes: int, seed: int, *, embedding: int = 64) -> Recogniser:
    """A recogniser for experiments.

    Args:
        kind: ``transformer`` has TransFace's layout, ``resnet`` that of ArcFace and TopoFR.
        classes: persons to tell apart.
        seed: of the first weights.
        embedding: width of the embedding.
    """
    encoder: TransFace | IResNet
    if kind == "transformer":
        encoder = TransFace(TransFaceConfig(width=64, depth=3, embedding=embedding))
    else:
        encoder = IResNet(IResNetConfig((1, 1, 1, 1), (8, 8, 16, 32, 64), embedding))
    recogniser = Recogniser(encoder, classes)
    _begin(recogniser, generator_for("recogniser", kind, seed))
    return recogniser


def save_recogniser(recogniser: Recogniser, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the encoder in its published layout, so that the face encoder loader reads it.

    Args:
        recogniser: as it was trained; a resnet's class centres stay in the file, as TopoFR keeps them.
        path: a safetensors file; it appears whole or not at all.
        metadata: texts for the file, such as recipe, steps and seed.
    """
    tensors = dict(recogniser.encoder.state_dict())
    if isinstance(recogniser.encoder, IResNet):
        tensors["weight"] = recogniser.centres.detach()
    write_model(path, tensors, metadata, "face-encoder")


@torch.no_grad()
def _begin(recogniser: Recogniser, generator: torch.Generator) -> None:
    for module in recogniser.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0, _LINEAR, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Conv2d):
            reach = module.weight[0].numel()
            module.weight.normal_(0, (2 / reach) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    recogniser.centres.normal_(0, _CENTRES, generator=generator)
    if isinstance(recogniser.encoder, TransFace):
        recogniser.encoder.pos_embed.normal_(0, _POSITIONS, generator=generator)
