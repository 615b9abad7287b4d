"""Which swapper an ONNX file is: told by its inputs, its outputs and its unused 512 x 512 map, never by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...encoders.arcface_iresnet.onnx_file import OnnxGraph
from ...errors import UnknownCheckpoint
from ...family import Licence
from ..base import EMBEDDING_WIDTH

INSWAPPER, RESWAPPER, HYPERSWAP = "inswapper", "reswapper_onnx", "hyperswap"
# Exports of ReSwapper keep the names of the torch layers.
_TORCH_NAME = "target_encoder.0.weight"
_ARCFACE = "its embeddings come from insightface's buffalo_l, for non-commercial research"
LICENCES = {
    INSWAPPER: Licence("MIT (insightface)", "non-commercial research only (insightface)", False, _ARCFACE),
    RESWAPPER: Licence(
        "AGPL-3.0 (somanchiu/ReSwapper)",
        "not stated apart from the code's AGPL-3.0; trained on inswapper's outputs, which are non-commercial",
        False,
        _ARCFACE,
    ),
    HYPERSWAP: Licence("OpenRAIL-AS (facefusion)", "ResearchRAIL (facefusion): research only", False, _ARCFACE),
}
TITLES = {INSWAPPER: "inswapper", RESWAPPER: "ReSwapper (ONNX)", HYPERSWAP: "HyperSwap"}


@dataclass(frozen=True, eq=False)
class OnnxLayout:
    """What an ONNX swapper takes and gives.

    Attributes:
        system: one of `LICENCES`.
        size: side of its crops in pixels.
        target: name of the input that takes crops.
        source: name of the input that takes the identity.
        output: name of the output that is the swapped face.
        at_once: crops of one call where the file fixes that number.
        emap: (512, 512) map of embeddings, or None where the network takes unit embeddings.
    """

    system: str
    size: int
    target: str
    source: str
    output: str
    at_once: int | None
    emap: Tensor | None

    @property
    def signed(self) -> bool:
        """Whether pixels are -1..1 inside instead of 0..1."""
        return self.system == HYPERSWAP


def layout_of(graph: OnnxGraph, session: Any) -> OnnxLayout:
    """Read the layout.

    Args:
        graph: the file's constants and operations.
        session: the same file in onnxruntime, for the sides of inputs and outputs.

    Raises:
        UnknownCheckpoint: another kind of network; names its inputs.
    """
    inputs = {one.name: tuple(one.shape) for one in session.get_inputs()}
    pictures = [name for name, shape in inputs.items() if len(shape) == 4 and shape[1] == 3]
    persons = [name for name, shape in inputs.items() if len(shape) == 2 and shape[1] == EMBEDDING_WIDTH]
    outputs = [one.name for one in session.get_outputs() if len(one.shape) in (3, 4)]
    if len(inputs) != 2 or len(pictures) != 1 or len(persons) != 1 or not outputs:
        raise _unknown(graph, inputs, "")
    shape = inputs[pictures[0]]
    sides = [side for side in shape[2:] if isinstance(side, int)]
    maps = _unused_maps(graph)
    if len(maps) > 1 or (sides and len(set(sides)) != 1) or len(sides) == 1:
        raise _unknown(graph, inputs, f" and {len(maps)} maps of {EMBEDDING_WIDTH} x {EMBEDDING_WIDTH}")
    if not sides and not maps:
        raise _unknown(graph, inputs, " of no fixed size")
    system = HYPERSWAP if not maps else RESWAPPER if _TORCH_NAME in graph.constants else INSWAPPER
    emap = maps[0] if maps else None
    batch = [inputs[name][0] for name in (pictures[0], persons[0])]
    fixed = [number for number in batch if isinstance(number, int) and number > 0]
    size = int(sides[0]) if sides else 128
    return OnnxLayout(system, size, pictures[0], persons[0], outputs[0], min(fixed) if fixed else None, emap)


def _unused_maps(graph: OnnxGraph) -> list[Tensor]:
    """The 512 x 512 constants that no operation reads; a re-exported file may keep its map at any place of the list."""
    used = {name for node in graph.nodes for name in node.inputs}
    wanted = (EMBEDDING_WIDTH, EMBEDDING_WIDTH)
    return [one.tensor() for name, one in graph.constants.items() if one.shape == wanted and name not in used]


def _unknown(graph: OnnxGraph, inputs: Mapping[str, Sequence[Any]], more: str) -> UnknownCheckpoint:
    told = ", ".join(f"{name} {list(shape)}" for name, shape in inputs.items())
    return UnknownCheckpoint(
        graph.path.name,
        expected="inswapper, ReSwapper or HyperSwap: a face [N, 3, S, S] and an identity [N, 512]",
        found=f"inputs {told or 'none'}{more}",
        cure="choose a swapper file; detectors and recognition networks have their own loaders",
    )
