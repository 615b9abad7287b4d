"""A SegFace of a few channels with numbers of the parity rule, and faces to parse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import parity
import torch
from likeness_pack.adapters.parsers.segface.arch import SegFace, Shape
from likeness_pack.adapters.parsers.segface.family import FAMILY
from likeness_pack.adapters.parsers.segface.labels import labels_of
from likeness_pack.adapters.parsers.segface.parser import SegFaceParser
from likeness_pack.faces.landmarks import landmarks5_from_boxes
from likeness_pack.faces.types import FaceBatch, Faces

TINY = Shape("swin", (32, 64, 128, 256), (1, 2, 1, 1), window=7, dim=32, inside=32)
BOXES = ((30.0, 20.0, 130.0, 150.0), (200.0, 60.0, 280.0, 170.0))
PICTURE = (240, 320)


def tiny_network(label_set: str = "celeba", shape: Shape = TINY) -> SegFace:
    """Tokens and place code enlarged, or every part would look alike."""
    network = SegFace(shape, labels_of(label_set))
    parity.fill_module(network)
    with torch.no_grad():
        for label in network.face_decoder.labels:
            network.face_decoder.get_parameter(f"{label.token}_token.weight").mul_(16)
        network.pe_layer.positional_encoding_gaussian_matrix.mul_(8)
    return network.eval().requires_grad_(False)


def tiny_parser(label_set: str = "celeba", resolution: int = 64) -> SegFaceParser:
    return SegFaceParser(tiny_network(label_set), label_set, resolution, f"tiny {label_set}", FAMILY.licence)


def trained(network: SegFace) -> dict[str, Any]:
    """What the authors' trainer writes around the model."""
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 200], 0.1)
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    optimizer.step()
    scheduler.step()
    return {
        "epoch": 299,
        "iteration": 7,
        "state_dict_backbone": weights,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


def write_trained(path: Path, label_set: str = "celeba") -> Path:
    """A file as the publisher has it."""
    torch.save(trained(tiny_network(label_set)), path)
    return path


def two_and_one() -> FaceBatch:
    """Two faces in the first of three pictures, one in the second, none in the third."""
    boxes = torch.tensor(BOXES)
    both = Faces(boxes, landmarks5_from_boxes(boxes), torch.ones(2))
    return FaceBatch((both, both.take([1]), Faces.none()), PICTURE, "test")


def pictures(count: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth coloured noise (B, H, W, 3)."""
    noise = torch.rand(count, 3, 15, 20, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=PICTURE, mode="bicubic").clamp(0, 1).movedim(1, -1)
