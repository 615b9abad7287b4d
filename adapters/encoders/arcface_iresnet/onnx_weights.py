"""From the graph of an ArcFace ONNX file to the weights of our residual network, by what follows what.

insightface's files (w600k_r50.onnx, glintr100.onnx) are exports of arcface_torch with most batch norms folded into the
convolutions; other exports keep the norms, name things otherwise or have the input's normalisation inside. Names are
never read: each operation gets its place from the operations around it. A folded norm becomes one that only adds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import BadCheckpoint
from .onnx_file import Constant, Node, OnnxGraph

NORM_EPS = 1e-5
# Values of a picture in files that normalise inside: 0..255, of which 127.5 is subtracted.
MIDDLE = 127.5
_THROUGH = ("Identity", "Dropout", "Cast")
_RESHAPES = ("Unsqueeze", "Squeeze", "Reshape", "Flatten")
_NORM = "BatchNormalization"

Weights = dict[str, Tensor]


def iresnet_weights(graph: OnnxGraph) -> Weights:
    """Weights under the names of `IResNet`, float32, norms with epsilon 1e-5.

    Raises:
        BadCheckpoint: the graph is another network; the message says where it leaves the expected path.
    """
    wiring = _Wiring(graph)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise wiring.refused(f"{len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    place, factor = _normalisation(wiring, graph.inputs[0])
    weights, place = _stem(wiring, place, factor)
    layer, number, seen = 0, 0, {place}
    while len(wiring.users(place)) > 1:
        block, place, first = _block(wiring, place)
        layer, number = (layer + 1, 0) if first else (layer, number + 1)
        weights |= _prefixed(f"layer{layer}.{number}", block)
        if place in seen:
            raise wiring.refused(f"a circle through {place!r}")
        seen.add(place)
    if layer != 4 or "layer1.0.conv1.weight" not in weights:
        raise wiring.refused(f"{layer} groups of residual blocks instead of 4")
    return weights | _head(wiring, place)


class _Wiring:
    """Who reads what; operations that change nothing here are taken out."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.path: Path = graph.path
        self._constants: dict[str, Constant] = dict(graph.constants)
        self._same: dict[str, str] = {}
        self._users: defaultdict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            if not node.outputs:
                raise self.refused(f"a {node.kind} without a result")
            source = self.name(node.inputs[0]) if node.inputs else ""
            value = node.settings.get("value")
            if node.kind == "Constant" and isinstance(value, Constant):
                self._constants[node.outputs[0]] = value
            elif node.kind in _THROUGH or (node.kind in _RESHAPES and source in self._constants):
                self._same[node.outputs[0]] = source
            elif not all(self.name(one) in self._constants for one in node.inputs):
                for name in dict.fromkeys(self.name(one) for one in node.inputs):
                    self._users[name].append(node)
        self.output = self.name(graph.outputs[0]) if graph.outputs else ""

    def name(self, name: str) -> str:
        """The name under which the value was first known."""
        return self._same.get(name, name)

    def users(self, name: str) -> list[Node]:
        """The operations that read a value."""
        return self._users[self.name(name)]

    def constant(self, name: str) -> Tensor:
        """The numbers of a constant."""
        found = self._constants.get(self.name(name))
        if found is None:
            raise self.refused(f"{name!r}, which is computed, where a constant is expected")
        return found.tensor()

    def parameter(self, node: Node, number: int) -> Tensor:
        """The numbers of an operation's input, counted from 0."""
        if len(node.inputs) <= number:
            raise self.refused(f"a {node.kind} with {len(node.inputs)} inputs")
        return self.constant(node.inputs[number])

    def is_constant(self, name: str) -> bool:
        """Whether a value is in the file rather than computed."""
        return self.name(name) in self._constants

    def next(self, name: str, *kinds: str) -> Node:
        """The one operation that reads a value; it must be of one of ``kinds``."""
        users = self.users(name)
        if len(users) != 1 or users[0].kind not in kinds:
            found = " and ".join(node.kind for node in users) or "nothing"
            raise self.refused(f"{found} after {name!r} instead of {' or '.join(kinds)}")
        return users[0]

    def refused(self, found: str) -> BadCheckpoint:
        """The refusal of a graph that is another network."""
        return BadCheckpoint(
            self.path.name,
            expected="the residual network of ArcFace",
            found=found,
            cure="convert w600k_r50.onnx or glintr100.onnx, and run networks of another kind through onnxruntime",
        )


def _normalisation(wiring: _Wiring, place: str) -> tuple[str, float]:
    """Skip ``(pixel - 127.5) * scale`` at the start; return what our -1..1 input must be multiplied by instead."""
    users = wiring.users(place)
    if len(users) != 1 or users[0].kind != "Sub":
        return place, 1.0
    shift = wiring.parameter(users[0], 1)
    scaled = wiring.next(users[0].outputs[0], "Mul", "Div")
    scale = wiring.parameter(scaled, 1)
    if scale.numel() != 1 or not bool(shift.eq(MIDDLE).all()):
        raise wiring.refused(f"an input from which {shift.flatten().tolist()[:3]} is subtracted instead of {MIDDLE}")
    factor = float(scale) if scaled.kind == "Mul" else 1 / float(scale)
    return scaled.outputs[0], MIDDLE * factor


def _stem(wiring: _Wiring, place: str, factor: float) -> tuple[Weights, str]:
    conv, norm, place = _convolution(wiring, wiring.next(place, "Conv"), 3, 1)
    slope = wiring.next(place, "PRelu")
    weights = {"conv1.weight": conv * factor, "prelu.weight": wiring.parameter(slope, 1).flatten()}
    return weights | _prefixed("bn1", norm), slope.outputs[0]


def _block(wiring: _Wiring, place: str) -> tuple[Weights, str, bool]:
    """One residual block: its weights, where it ends, and whether it begins a layer (halves the picture)."""
    users = {node.kind: node for node in wiring.users(place)}
    norm_node, first = users.get(_NORM), "Conv" in users
    if norm_node is None or len(wiring.users(place)) != 2 or not users.keys() & {"Add", "Conv"}:
        raise wiring.refused(f"{' and '.join(users)} after {place!r}, which is no residual block")
    conv1, bn2, inner = _convolution(wiring, wiring.next(norm_node.outputs[0], "Conv"), 3, 1)
    slope = wiring.next(inner, "PRelu")
    conv2, bn3, inner = _convolution(wiring, wiring.next(slope.outputs[0], "Conv"), 3, 2 if first else 1)
    weights = {"conv1.weight": conv1, "conv2.weight": conv2}
    weights["prelu.weight"] = wiring.parameter(slope, 1).flatten()
    norms = {"bn1": _norm(wiring, norm_node), "bn2": bn2, "bn3": bn3}
    shortcut = place
    if first:
        weights["downsample.0.weight"], norms["downsample.1"], shortcut = _convolution(wiring, users["Conv"], 1, 2)
    for name, norm in norms.items():
        weights |= _prefixed(name, norm)
    total = wiring.next(inner, "Add")
    if {wiring.name(one) for one in total.inputs} != {wiring.name(inner), wiring.name(shortcut)}:
        raise wiring.refused(f"a sum {total.outputs[0]!r} that leaves the shortcut out")
    return weights, total.outputs[0], first


def _head(wiring: _Wiring, place: str) -> Weights:
    norm = wiring.next(place, _NORM)
    weights = _prefixed("bn2", _norm(wiring, norm))
    flat = wiring.next(norm.outputs[0], "Flatten", "Reshape")
    linear = wiring.next(flat.outputs[0], "Gemm", "MatMul")
    weight, bias, place = _linear(wiring, linear)
    features = _adding(torch.zeros(len(bias)))
    if wiring.users(place):
        last = wiring.next(place, _NORM)
        features, place = _norm(wiring, last), last.outputs[0]
    if wiring.name(place) != wiring.output:
        raise wiring.refused(f"{' and '.join(node.kind for node in wiring.users(place))} after the last norm")
    return weights | {"fc.weight": weight, "fc.bias": bias} | _prefixed("features", features)


def _linear(wiring: _Wiring, node: Node) -> tuple[Tensor, Tensor, str]:
    """Weight (out, in), bias (out,) and where the layer ends."""
    weight = wiring.parameter(node, 1)
    if node.kind == "MatMul":
        total = wiring.next(node.outputs[0], "Add")
        number = next((index for index, name in enumerate(total.inputs) if wiring.is_constant(name)), 1)
        return weight.T.contiguous(), wiring.parameter(total, number).flatten(), total.outputs[0]
    if node.number("alpha", 1.0) != 1 or node.number("beta", 1.0) != 1 or node.number("transA", 0) != 0:
        raise wiring.refused("a linear layer with factors of its own")
    weight = weight if node.number("transB", 0) else weight.T.contiguous()
    bias_numbers = wiring.parameter(node, 2).flatten() if len(node.inputs) > 2 else torch.zeros(len(weight))
    return weight, bias_numbers, node.outputs[0]


def _convolution(wiring: _Wiring, node: Node, kernel: int, stride: int) -> tuple[Tensor, Weights, str]:
    """Weight of a convolution, the norm after it (kept or folded) and where both end."""
    weight = wiring.parameter(node, 1)
    pad = kernel // 2
    settings = {
        "strides": (node.whole_numbers("strides", (1, 1)), (stride, stride)),
        "pads": (node.whole_numbers("pads", (0, 0, 0, 0)), (pad, pad, pad, pad)),
        "dilations": (node.whole_numbers("dilations", (1, 1)), (1, 1)),
        "kernel": (tuple(weight.shape[2:]), (kernel, kernel)),
        "group": (int(node.number("group", 1)), 1),
    }
    for name, (found, expected) in settings.items():
        if found != expected:
            raise wiring.refused(f"a convolution with {name} {found} instead of {expected} ({node.outputs[0]!r})")
    bias = wiring.parameter(node, 2) if len(node.inputs) > 2 else torch.zeros(weight.shape[0])
    users = wiring.users(node.outputs[0])
    if len(users) == 1 and users[0].kind == _NORM:
        norm = _norm(wiring, users[0])
        norm["running_mean"] = norm["running_mean"] - bias
        return weight, norm, users[0].outputs[0]
    return weight, _adding(bias), node.outputs[0]


def _norm(wiring: _Wiring, node: Node) -> Weights:
    """A norm's numbers; another epsilon goes into the variance."""
    names = ("weight", "bias", "running_mean", "running_var")
    norm = {name: wiring.parameter(node, number) for number, name in enumerate(names, start=1)}
    norm["running_var"] = norm["running_var"] + (node.number("epsilon", NORM_EPS) - NORM_EPS)
    return norm


def _adding(bias: Tensor) -> Weights:
    """A norm that adds ``bias`` and does nothing else."""
    one = torch.ones_like(bias)
    return {"weight": one, "bias": bias, "running_mean": torch.zeros_like(bias), "running_var": one - NORM_EPS}


def _prefixed(prefix: str, weights: Mapping[str, Tensor]) -> Weights:
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}
