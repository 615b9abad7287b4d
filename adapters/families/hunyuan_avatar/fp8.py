"""The fp8 file of HunyuanVideo-Avatar: weights on the grid of float8_e4m3fn, and a second file with their scales.

Facts: ``hymm_sp/modules/fp8_optimization.py`` of Tencent-Hunyuan/HunyuanVideo-Avatar: every linear layer of a block is
``Linear(x, bfloat16(float8(weight)) * bfloat16(scale))``. The published file is about as large as the bf16 one, so its
weights may be stored in two bytes although they lie on the grid; the values tell, not the dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...checkpoint import load_tensors, read_contents, read_header
from ...errors import BadCheckpoint, KeyMismatch
from ...file_kinds import container_of
from ...header_torch import read_tensor
from ...inert_values import TensorRef
from ...nested import leaves
from ...strict_load import group_by_prefix
from .layout import is_block_linear

FP8 = torch.float8_e4m3fn
SCALE = "scale_weight"
MAP_ENDING = "_map"
_WRAPPER = "module."
# Checking every number of a large weight would take as long as reading it.
_CHECKED = 1 << 16


def on_grid(weight: Tensor) -> bool:
    """Whether the numbers of a weight are float8_e4m3fn's, whatever dtype they are stored in.

    A trained weight of another dtype has numbers off the grid among its first few.
    """
    if weight.dtype == FP8:
        return True
    some = weight.flatten()[:_CHECKED].float()
    return bool((some.to(FP8).float() == some).all()) and bool(some.any())


def is_quantised(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the linear layers of the blocks, by official names, lie on the grid."""
    weights = [tensor for name, tensor in tensors.items() if is_block_linear(name)]
    return bool(weights) and all(on_grid(weight) for weight in weights)


def scales_file(path: Path) -> Path:
    """Where the scales of a published file are: beside it, with ``_map`` behind its name."""
    return path.with_name(f"{path.stem}{MAP_ENDING}{path.suffix}")


def read_scales(path: Path) -> dict[str, Tensor]:
    """Scales () float32 by official layer name (without ``.weight``), of numbers or tensors of one number.

    Raises:
        BadCheckpoint: a file that cannot be read, or one with entries that are no single number.
        UnsafeCheckpoint: a pickle that asks for code.
    """
    scales: dict[str, Tensor] = {}
    for name, value in _entries(path).items():
        if value.numel() != 1:
            raise BadCheckpoint(
                path.name,
                expected="one scale for each layer",
                found=f"{value.numel()} numbers at {name}",
                cure="choose the file that ends in _map beside the fp8 checkpoint",
            )
        scales[name.removeprefix(_WRAPPER)] = value.reshape(()).float()
    return scales


def _entries(path: Path) -> dict[str, Tensor]:
    header_free = path.is_file() and container_of(path)
    if not header_free or header_free[0] == "safetensors":
        return load_tensors(read_header(path))
    contents = read_contents(path, header_free[1], header_free[0])
    found: dict[str, Tensor] = {}
    for name, leaf in leaves(contents.pickle.value, path.name):
        if isinstance(leaf, TensorRef):
            found[name] = read_tensor(path, contents.places, leaf)
        elif isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
            found[name] = torch.tensor(float(leaf))
    return found


def with_scales(tensors: Mapping[str, Tensor], scales: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors with block weights as float8_e4m3fn and ``<layer>.scale_weight`` beside each; the rest as it is.

    Args:
        tensors: by official name.
        scales: by layer, from `read_scales`.
        what: file, for the message.

    Raises:
        KeyMismatch: a layer without a scale, or a scale without a layer.
    """
    layers = {name.removesuffix(".weight") for name in tensors if is_block_linear(name)}
    missing, leftover = sorted(layers - set(scales)), sorted(set(scales) - layers)
    if missing or leftover:
        parts = [f"{len(missing)} layers without one: {group_by_prefix(missing)}"] if missing else []
        parts += [f"{len(leftover)} of no layer: {group_by_prefix(leftover)}"] if leftover else []
        raise KeyMismatch(
            what,
            expected=f"a scale for each of the {len(layers)} linear layers of the blocks",
            found="; ".join(parts),
            cure="choose the _map file that was published with this checkpoint",
        )
    out = {name: tensor.to(FP8) if is_block_linear(name) else tensor for name, tensor in tensors.items()}
    return out | {f"{layer}.{SCALE}": scales[layer] for layer in layers}


def needs_scales(what: str, scales: Path) -> KeyMismatch:
    """The refusal of a quantised file whose scales are not there."""
    return KeyMismatch(
        what,
        expected=f"the scales of its fp8 weights ({scales.name}) beside it",
        found="none, and without them every layer would be of a wrong size",
        cure=f"put {scales.name} of the same publication into the same folder, or choose it as fp8_scales",
    )
