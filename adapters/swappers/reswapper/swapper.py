"""ReSwapper as a `FaceSwapper`, in torch alone: it needs neither onnxruntime nor insightface."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...family import Licence
from ..base import FaceSwapper, latents
from .arch import SwapNetwork

LICENCE = Licence(
    code="AGPL-3.0 (somanchiu/ReSwapper); the network here is written anew from its description",
    weights="not stated apart from the code's AGPL-3.0; trained on inswapper's outputs, which are non-commercial",
    commercial=False,
    note="its embeddings come from insightface's buffalo_l, for non-commercial research",
)


class Weights(nn.Module):
    """Network and map, so that the host moves both together."""

    emap: Tensor

    def __init__(self, network: SwapNetwork, emap: Tensor) -> None:
        super().__init__()
        self.swapper = network
        self.register_buffer("emap", emap)


class ReSwapper(FaceSwapper):
    """inswapper's architecture in torch.

    Args:
        network: with its weights, in evaluation mode.
        emap: (512, 512) inswapper's map of embeddings.
        size: side of the crops the file was trained with, 128 or 256.
        notes: for the report.
    """

    id = "reswapper"
    licence = LICENCE

    def __init__(self, network: SwapNetwork, emap: Tensor, size: int, notes: tuple[str, ...] = ()) -> None:
        self.network: Weights = Weights(network, emap).eval().requires_grad_(False)
        self.size, self.notes = size, notes
        self.title = f"ReSwapper {size}"
        # insightface's alignment shifts with the size, and the larger files were trained with that shift (README).
        self.offset = 128 / 32768 * size - 0.5

    @torch.inference_mode()
    def swap(self, crops: Tensor, source: Tensor) -> Tensor:
        """See `FaceSwapper.swap`; runs where its weights are, in float32."""
        device = self.network.emap.device
        vector = latents(source.to(device), self.network.emap)
        swapped: Tensor = self.network.swapper(crops.to(device, torch.float32), vector)
        return swapped.cpu()
