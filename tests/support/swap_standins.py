"""Swappers without weights: python ones, and ONNX files in the published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from likeness_pack.adapters.family import Licence
from likeness_pack.adapters.swappers.base import FaceSwapper
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from torch import Tensor


class StandIn(FaceSwapper):
    """Returns what ``change`` makes of crops (N, 3, S, S) and sources (N, 512); the crops themselves by default."""

    id, title, licence = "stand_in", "Stand-in", Licence("MIT", "none", True)

    def __init__(self, size: int = 128, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.size, self.change = size, change
        self.calls: list[int] = []

    def swap(self, crops: Tensor, source: Tensor) -> Tensor:
        """Count the call."""
        assert len(crops) == len(source)
        assert crops.shape[1:] == (3, self.size, self.size)
        self.calls.append(len(crops))
        return crops if self.change is None else self.change(crops, source)


def face_at(x: float, y: float, size: float, degrees: float = 0.0) -> Tensor:
    """Landmarks5 (5, 2) of a face whose swap crop is ``size`` pixels wide."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return ((template_points("arcface_128", 1).float() - 0.5) * size) @ turn.T + torch.tensor([x, y])


def faces_at(*places: tuple[float, float, float], embeddings: Tensor | None = None) -> Faces:
    """Faces at (x, y, size)."""
    boxes = torch.tensor([[x - s / 3, y - s / 3, x + s / 3, y + s / 3] for x, y, s in places]).reshape(-1, 4)
    points = [face_at(*place) for place in places]
    marks = torch.stack(points) if points else torch.zeros(0, 5, 2)
    return Faces(boxes, marks, torch.full((len(places),), 0.9), embeddings)


def batch_of(*images: Faces, size: tuple[int, int] = (120, 320), encoder: str | None = None) -> FaceBatch:
    """Frames of one size."""
    return FaceBatch(images, size, "user", encoder)


def write_onnx_swapper(
    path: Path, size: int = 128, *, emap: Tensor | None = None, batch: int | str = "n", torch_names: bool = False
) -> Path:
    """An ONNX file whose output is the target plus a colour that the source vector's first three numbers say.

    With ``emap`` the map is the first constant and a used 512 x 512 constant stands after it.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    def constant(name: str, value: Tensor) -> object:
        return numpy_helper.from_array(np.ascontiguousarray(value.numpy()), name)

    pick = torch.zeros(512, 3)
    pick[0, 0] = pick[1, 1] = pick[2, 2] = 1
    constants = [] if emap is None else [constant("buff2fs", emap)]
    constants += [constant("same", torch.eye(512)), constant("pick", pick), constant("axes", torch.tensor([2, 3]))]
    if torch_names:
        constants.append(constant("target_encoder.0.weight", torch.zeros(1)))
    nodes = [
        helper.make_node("MatMul", ["source", "same"], ["mapped"]),
        helper.make_node("MatMul", ["mapped", "pick"], ["colour"]),
        helper.make_node("Unsqueeze", ["colour", "axes"], ["wide"]),
        helper.make_node("Add", ["target", "wide"], ["output"]),
    ]
    kind = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("target", kind, [batch, 3, size, size]),
        helper.make_tensor_value_info("source", kind, [batch if batch == 1 else "m", 512]),
    ]
    outputs = [helper.make_tensor_value_info("output", kind, [batch, 3, size, size])]
    graph = helper.make_graph(nodes, "swapper", inputs, outputs, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def write_reswapper(path: Path, *, emap: bool = True, seed: int = 0) -> Path:
    """A ReSwapper file of small widths with seeded weights, and its map beside it."""
    import numpy as np
    from likeness_pack.adapters.swappers.reswapper.arch import SwapNetwork

    chance = torch.Generator().manual_seed(seed)
    network = SwapNetwork((4, 8, 8, 16), blocks=2)
    tensors = {
        name: torch.randn(one.shape, generator=chance) * (0.5 / max(one[0].numel(), 1) ** 0.5)
        for name, one in network.state_dict().items()
    }
    torch.save(tensors, path)
    if emap:
        np.save(path.with_name("emap.npy"), torch.randn(512, 512, generator=chance).numpy())
    return path


def write_onnx_recogniser(path: Path) -> Path:
    """A recognition network of faces (n, 3, 112, 112) that only knows their mean colour: embeddings (n, 512)."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = torch.randn(3, 512, generator=torch.Generator().manual_seed(0))
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["output"]),
    ]
    kind = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input", kind, ["n", 3, 112, 112])]
    outputs = [helper.make_tensor_value_info("output", kind, ["n", 512])]
    graph = helper.make_graph(nodes, "faces", inputs, outputs, [numpy_helper.from_array(weight.numpy(), "weight")])
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path
