"""An ONNX file as a `FaceSwapper`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...detectors.insightface.sessions import open_session
from ...encoders.arcface_iresnet.onnx_file import read_onnx
from ..base import FaceSwapper, latents
from .layout import LICENCES, RESWAPPER, TITLES, OnnxLayout, layout_of

ONE_BY_ONE = "this file fixes its batch at 1, so faces go through it one by one"


class OnnxSwapper(FaceSwapper):
    """inswapper, ReSwapper or HyperSwap; onnxruntime owns the weights.

    Args:
        layout: what the file takes and gives.
        session: onnxruntime's session on it.
        notes: what to tell about the execution provider.
    """

    def __init__(self, layout: OnnxLayout, session: Any, notes: tuple[str, ...] = ()) -> None:
        self._layout, self._session = layout, session
        self.id, self.licence, self.size = layout.system, LICENCES[layout.system], layout.size
        self.title = f"{TITLES[layout.system]} {layout.size}"
        self.offset = 128 / 32768 * layout.size - 0.5 if layout.system == RESWAPPER else 0.0
        self.at_once = layout.at_once
        self.notes = (*notes, ONE_BY_ONE) if layout.at_once == 1 else notes
        self._halves = {one.name: "float16" in one.type for one in session.get_inputs()}

    def swap(self, crops: Tensor, source: Tensor) -> Tensor:
        """See `FaceSwapper.swap`."""
        count = len(crops)
        step = self.at_once or max(count, 1)
        vector = self._vectors(source)
        return torch.cat([self._run(crops[i : i + step], vector[i : i + step], step) for i in range(0, count, step)])

    def _vectors(self, source: Tensor) -> Tensor:
        if self._layout.emap is None:
            return torch.nn.functional.normalize(source.float(), dim=-1)
        return latents(source.cpu(), self._layout.emap)

    def _run(self, crops: Tensor, vectors: Tensor, step: int) -> Tensor:
        """One call; a last part that is too small for a fixed batch is filled up with its own last face."""
        count = len(crops)
        rows = torch.arange(step if self.at_once else count).clamp(max=count - 1)
        pixels = crops.cpu().float() * 2 - 1 if self._layout.signed else crops.cpu().float()
        feed = {self._layout.target: pixels[rows], self._layout.source: vectors.cpu()[rows]}
        ready = {name: (one.half() if self._halves[name] else one).numpy() for name, one in feed.items()}
        swapped = torch.from_numpy(self._session.run([self._layout.output], ready)[0]).float()
        swapped = swapped.reshape(len(rows), 3, *swapped.shape[-2:])[:count]
        return ((swapped + 1) / 2 if self._layout.signed else swapped).clamp(0, 1)


def load_onnx_swapper(path: Path, provider: str = "auto") -> OnnxSwapper:
    """Load an ONNX swapper.

    Args:
        path: the file.
        provider: a key of `detectors.insightface.sessions.PROVIDERS`, or ``"auto"`` for the fastest there is; when it
            does not start the CPU answers, and a note says so.

    Raises:
        BadCheckpoint: damaged, cut off or no ONNX file.
        UnknownCheckpoint: another kind of network.
        MissingPackage: onnxruntime is not installed.
    """
    graph = read_onnx(path)
    session, notes = open_session(path, provider, "face swapper")
    return OnnxSwapper(layout_of(graph, session), session, notes)
