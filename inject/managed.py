"""Every network of ours under the host's memory manager, so that unloading, low VRAM and /free work."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .host import model_management, model_patcher
from .shared import Shared


class ManagedNetwork(Shared):
    """A network and its ModelPatcher. Hold it as long as the network is used: upstream keeps only a weak reference.

    Args:
        network: any module in eval mode.
    """

    def __init__(self, network: nn.Module) -> None:
        manager = model_management()
        self.network = network
        self.patcher: Any = model_patcher().ModelPatcher(
            network, load_device=manager.get_torch_device(), offload_device=torch.device("cpu")
        )

    @property
    def device(self) -> torch.device:
        """The device the host loads the network to."""
        return torch.device(self.patcher.load_device)

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.network.state_dict().values())

    def load(self) -> torch.device:
        """Have the host load the network; return the device it is on."""
        model_management().load_models_gpu([self.patcher])
        return self.device

    def load_beside(self) -> None:
        """Load the network without making the host unload anything, for use while another model samples.

        Where memory is short the weights stay where they are and the castable layers fetch them one by one.
        """
        manager = model_management()
        device = self.device
        if device.type == "cpu" or manager.get_free_memory(device) > self.bytes + manager.minimum_inference_memory():
            manager.load_models_gpu([self.patcher])
