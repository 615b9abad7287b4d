"""Encodes faces with the residual network of ArcFace and TopoFR, in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....faces.align import crop_faces
from ...adapter import module_device_dtype
from ...identity import EMBEDDING
from ..base import NetworkEncoder
from .arch import IMAGE_SIZE, IResNet


class IResNetEncoder(NetworkEncoder):
    """Feature: ``embedding`` (N, E), not normalised.

    Crop and values are insightface's: 112 px arcface template, RGB, (v - 127.5) / 127.5. Head masks are not used: the
    network was trained on faces with their background.
    """

    network: IResNet

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(index), dtype=torch.long)
        crops = crop_faces(images, rows, landmarks5, "arcface", IMAGE_SIZE, padding="zeros")
        device, dtype = module_device_dtype(self.network)
        with torch.no_grad():
            embedding = self.network(((crops - 0.5) / 0.5).to(device, dtype))
        return {EMBEDDING: embedding.float().cpu()}
