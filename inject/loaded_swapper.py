"""A face swapper under the host's care: the value of the socket LIKENESS_SWAPPER."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..adapters import registry
from ..adapters.swappers.base import FaceSwapper
from ..adapters.swappers.onnx_swapper.swapper import load_onnx_swapper
from .host import stop_if_cancelled
from .managed import ManagedNetwork
from .shared import Shared

ONNX = ".onnx"


class LoadedSwapper(FaceSwapper, Shared):
    """A swapper whose network the host's memory manager owns; itself a swapper.

    Args:
        swapper: any swapper of `adapters.swappers`.
    """

    def __init__(self, swapper: FaceSwapper) -> None:
        self.swapper = swapper
        self.id, self.title, self.licence, self.notes = swapper.id, swapper.title, swapper.licence, swapper.notes
        self.size, self.template, self.offset = swapper.size, swapper.template, swapper.offset
        self.at_once, self.network = swapper.at_once, swapper.network
        self.managed = ManagedNetwork(swapper.network) if swapper.network is not None else None

    def swap(self, crops: Tensor, source: Tensor) -> Tensor:
        """As the swapper does, with its network loaded by the host and a stop on cancel before each call."""
        stop_if_cancelled()
        if self.managed is not None:
            self.managed.load()
        return self.swapper.swap(crops, source)


def load_swapper(path: Path, provider: str = "auto", variant: str = registry.AUTO) -> LoadedSwapper:
    """Load a swapper of a file: ONNX through onnxruntime, everything else through the registry.

    Args:
        path: the file.
        provider: where ONNX files run, see `adapters.detectors.insightface.sessions.PROVIDERS`.
        variant: for files whose tensors cannot tell it.
    """
    if path.suffix.lower() == ONNX:
        return LoadedSwapper(load_onnx_swapper(path, provider))
    return LoadedSwapper(registry.load(path, kind="swapper", variant=variant))
