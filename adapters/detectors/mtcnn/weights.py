"""Weights of MTCNN from the installed ``mtcnn`` package (MIT); neither the package nor TensorFlow is imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import BadCheckpoint, MissingPackage
from .arch import Mtcnn
from .joblib_arrays import read_arrays


def load_mtcnn() -> Mtcnn:
    """The three networks with the package's weights, float32 on the CPU, in eval mode.

    Raises:
        MissingPackage: ``mtcnn`` or ``lz4`` is not installed.
        BadCheckpoint: a file is missing or its arrays do not fit the networks.
        UnsafeCheckpoint: a file asks for more than arrays.
    """
    folder = _weight_folder()
    network = Mtcnn()
    for name, module in (("pnet", network.pnet), ("rnet", network.rnet), ("onet", network.onet)):
        _fill(module, read_arrays(_decompressed(folder / f"{name}.lz4"), f"{name}.lz4"), f"{name}.lz4")
    return network.eval().requires_grad_(False)


def _weight_folder() -> Path:
    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise _missing("mtcnn")
    return Path(next(iter(spec.submodule_search_locations))) / "assets" / "weights"


def _missing(package: str) -> MissingPackage:
    return MissingPackage(
        "MTCNN face detector",
        expected=f"the package {package}",
        found="none",
        cure=f'run "{sys.executable}" -m pip install "mtcnn>=1.0.0" and restart ComfyUI',
    )


def _decompressed(path: Path) -> bytes:
    try:
        lz4 = importlib.import_module("lz4.frame")
    except ImportError as cause:
        raise _missing("lz4") from cause
    try:
        return lz4.decompress(path.read_bytes())
    except (OSError, RuntimeError) as cause:
        raise BadCheckpoint(
            str(path),
            expected="an lz4 file with the network's arrays",
            found=str(cause),
            cure=f'run "{sys.executable}" -m pip install --force-reinstall --no-deps "mtcnn>=1.0.0"',
        ) from cause


def _fill(module: nn.Module, arrays: list[np.ndarray[Any, Any]], what: str) -> None:
    """Give a network its arrays: both list their parameters in the order of the layers."""
    names = [name for name, _ in module.named_parameters()]
    if len(names) != len(arrays):
        raise _unfit(what, f"{len(names)} arrays", str(len(arrays)))
    targets = dict(module.named_parameters())
    state = {name: _to_torch(array) for name, array in zip(names, arrays, strict=True)}
    for name, expected, found in _misfits(targets, state):
        raise _unfit(what, f"{name} of shape {expected}", str(found))
    module.load_state_dict(state, strict=True)


def _misfits(targets: dict[str, nn.Parameter], state: dict[str, Tensor]) -> Iterator[tuple[str, Any, Any]]:
    for name, tensor in state.items():
        if targets[name].shape != tensor.shape:
            yield name, tuple(targets[name].shape), tuple(tensor.shape)


def _to_torch(array: np.ndarray[Any, Any]) -> Tensor:
    """Keras layouts to torch: HWIO -> OIHW, (in, out) -> (out, in), shared PReLU (1, 1, C) -> (C,)."""
    tensor = torch.from_numpy(array.astype(np.float32))
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    if tensor.ndim == 3:
        return tensor.reshape(-1)
    return tensor.t().contiguous() if tensor.ndim == 2 else tensor


def _unfit(what: str, expected: str, found: str) -> BadCheckpoint:
    return BadCheckpoint(what, expected=expected, found=found, cure="install the published mtcnn package anew")
