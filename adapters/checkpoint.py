"""Safe reading of checkpoints: `read_header` (what is inside), `load_tensors`, and `load_strictly` into a module.

Nothing here runs code from a file. Containers: safetensors, torch zip, torch as written before 1.6.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import BadCheckpoint, UnsafeCheckpoint
from .file_kinds import Container, container_of
from .header_safetensors import read_safetensors_header
from .header_torch import TorchContents, read_legacy, read_tensor, read_torch_header, read_zip
from .inert_values import TensorRef
from .nested import leaves, printable
from .strict_load import load_strictly
from .tensor_info import RawHeader, TensorInfo, canonical_names

__all__ = ["CheckpointHeader", "TensorInfo", "load_strictly", "load_tensors", "read_header"]

_SAMPLES = 64
_SAMPLE_BYTES = 4096
# What torch's safe loader raises for damaged files.
_DAMAGED = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError)


@dataclass(frozen=True, eq=False)
class CheckpointHeader:
    """What a checkpoint holds, known without reading a single tensor.

    Attributes:
        path: the file.
        size: its length in bytes.
        container: how it is packed.
        tensors: shape and dtype by canonical name: nested levels joined by a dot, and a level that wraps everything
            (``state_dict``, ``model``, ``module.``) removed.
        metadata: texts of the file (safetensors metadata; plain values beside the tensors of a torch file).
        digest: sha256 over the size, the bytes that describe the tensors (in a zip also the checksums of all entries)
            and 64 samples of 4096 bytes spread over the file: cheap, and different for files that differ in training.
        foreign: classes and functions that the pickle asks for beyond tensors; loading refuses if there are any.
        raw_names: the name in the file for each canonical name.
        by_weights_only: whether torch's own safe loader knows everything in the file.
    """

    path: Path
    size: int
    container: Literal["safetensors", "torch_zip", "torch_legacy"]
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    digest: str
    foreign: tuple[str, ...] = ()
    raw_names: Mapping[str, str] = field(default_factory=dict)
    by_weights_only: bool = True

    def has(self, *names: str) -> bool:
        """Whether every one of ``names`` is in the file."""
        return all(name in self.tensors for name in names)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of ``name``, or None if the file lacks it."""
        info = self.tensors.get(name)
        return None if info is None else info.shape

    def with_prefix(self, prefix: str) -> dict[str, TensorInfo]:
        """The tensors whose names begin with ``prefix``, under what follows it."""
        return {name.removeprefix(prefix): info for name, info in self.tensors.items() if name.startswith(prefix)}


def read_header(path: Path | str) -> CheckpointHeader:
    """Read names, shapes and dtypes of a checkpoint. Allocates no tensor, runs no code, keeps no file open.

    Raises:
        BadCheckpoint: missing, empty, truncated, another kind of file, or a header that contradicts the file.
        UnsafeCheckpoint: a program (TorchScript), or a pickle that holds requests for code and no tensors.
    """
    path = Path(path)
    if "\x00" in path.name:
        raise BadCheckpoint(printable(path.name), expected="a file name", found="a NUL in it", cure="check the path")
    try:
        container, size = container_of(path)
        raw = _raw_header(path, size, container)
        digest = _digest(path, size, raw.fingerprint)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not raw.tensors:
        raise BadCheckpoint(path.name, expected="tensors", found="a file without any", cure="choose a weight file")
    names = canonical_names(raw.tensors)
    tensors = {name: raw.tensors[names[name]] for name in names}
    return CheckpointHeader(
        path=path,
        size=size,
        container=container,
        tensors=MappingProxyType(tensors),
        metadata=MappingProxyType(dict(raw.metadata)),
        digest=digest,
        foreign=raw.foreign,
        raw_names=MappingProxyType(names),
        by_weights_only=raw.by_weights_only,
    )


def load_tensors(header: CheckpointHeader, prefix: str = "") -> dict[str, Tensor]:
    """Load the tensors whose canonical names begin with ``prefix``, which is stripped; CPU, dtypes as in the file.

    The tensors own their memory: the file is closed and may be replaced.

    Raises:
        UnsafeCheckpoint: the pickle asks for classes beyond tensors, plain containers and numpy numbers.
        BadCheckpoint: the file changed since its header was read, or its data is damaged.
    """
    if header.foreign:
        raise unsafe(header)
    wanted = {name: raw for name, raw in header.raw_names.items() if name.startswith(prefix)}
    try:
        if header.path.stat().st_size != header.size:
            raise _changed(header)
        loaded = _load(header, wanted)
    except OSError as error:
        raise _unreadable(header.path, error) from error
    for name, tensor in loaded.items():
        if tuple(tensor.shape) != header.tensors[name].shape or tensor.dtype != header.tensors[name].dtype:
            raise _changed(header)
    return {name.removeprefix(prefix): tensor for name, tensor in loaded.items()}


def unsafe(header: CheckpointHeader) -> UnsafeCheckpoint:
    """The refusal of a pickle that asks for more than tensors; it names the classes and the converter."""
    more = len(header.foreign) - 5
    shown = printable(", ".join(header.foreign[:5])) + (f" and {more} more" if more > 0 else "")
    return UnsafeCheckpoint(
        header.path.name,
        expected="a pickle of tensors only",
        found=f"one that also asks for {shown}, which was not carried out",
        cure=f'convert it without running it: python tools/convert_checkpoint.py "{header.path.name}"',
    )


def read_contents(path: Path, size: int, container: Container) -> TorchContents:
    """Read a torch file inertly. Raises BadCheckpoint or UnsafeCheckpoint."""
    return read_zip(path, size) if container == "torch_zip" else read_legacy(path, size)


def _raw_header(path: Path, size: int, container: Container) -> RawHeader:
    if container == "safetensors":
        return read_safetensors_header(path, size)
    return read_torch_header(path, read_contents(path, size, container))


def _digest(path: Path, size: int, fingerprint: bytes) -> str:
    sha = hashlib.sha256(str(size).encode("ascii"))
    sha.update(fingerprint)
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            sha.update(file.read(_SAMPLE_BYTES))
    return sha.hexdigest()


def _load(header: CheckpointHeader, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    if header.container == "safetensors":
        return _load_safetensors(header, wanted)
    if not header.by_weights_only:
        return _load_described(header, wanted)
    found: dict[str, Tensor] = dict(leaves(_load_torch(header), header.path.name))
    if not all(isinstance(found.get(raw), Tensor) for raw in wanted.values()):
        raise _changed(header)
    return {name: _owned(found[raw]) for name, raw in wanted.items()}


def _load_torch(header: CheckpointHeader) -> object:
    try:
        # Newer torch trusts the suffix .safetensors when it is given a path, whatever the file is.
        if header.container == "torch_legacy" or header.path.suffix == ".safetensors":
            with header.path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        return torch.load(header.path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _refused_by_torch(header, error) from error
    except _DAMAGED as error:
        raise _damaged(header, error) from error


def _owned(tensor: Tensor) -> Tensor:
    """Copy out of the mapped file; a tensor expanded over a small storage stays expanded."""
    tensor = tensor.detach()
    if tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes():
        return tensor.clone(memory_format=torch.contiguous_format)
    own = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage().clone())
    return own.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _load_safetensors(header: CheckpointHeader, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        with safe_open(header.path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(raw).clone() for name, raw in wanted.items()}
    except SafetensorError as error:
        raise _damaged(header, error) from error


def _load_described(header: CheckpointHeader, wanted: Mapping[str, str]) -> dict[str, Tensor]:
    # torch's safe loader refuses numpy numbers; they are plain data, so the inert reader's description is enough.
    contents = read_contents(header.path, header.size, header.container)
    found: dict[str, TensorRef] = dict(leaves(contents.pickle.value, header.path.name))
    return {name: read_tensor(header.path, contents.places, found[raw]) for name, raw in wanted.items()}


def _unreadable(path: Path, error: OSError) -> BadCheckpoint:
    found = "no such file" if isinstance(error, FileNotFoundError) else f"{error.strerror or error}"
    return BadCheckpoint(path.name, expected="a readable file", found=found, cure="check the path and its permissions")


def _changed(header: CheckpointHeader) -> BadCheckpoint:
    return BadCheckpoint(
        header.path.name,
        expected=f"the file of {header.size} bytes that was recognised",
        found="another one in its place",
        cure="load it again",
    )


def _refused_by_torch(header: CheckpointHeader, error: Exception) -> UnsafeCheckpoint:
    return UnsafeCheckpoint(
        header.path.name,
        expected="a pickle that torch's safe loader reads",
        found=f"one that it refuses ({printable(str(error))[:120]})",
        cure=f'convert it without running it: python tools/convert_checkpoint.py "{header.path.name}"',
    )


def _damaged(header: CheckpointHeader, error: Exception) -> BadCheckpoint:
    return BadCheckpoint(
        header.path.name,
        expected="readable tensor data",
        found=f"damaged data ({printable(str(error))[:120]})",
        cure="download the file again and compare its size with the publisher's",
    )
