"""What an inert pickle holds in place of objects: descriptions of tensors, storages and numpy values, and records.

Argument orders are those of torch's own rebuild functions (``torch/_utils.py``) and numpy's ``__reduce__``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .tensor_info import unbacked_size

MAX_RANK = 64
MAX_COUNT = 2**63 - 1


def checked_key(key: Any) -> Any:
    """Return a dictionary key if it is text, a number, a name or a flat tuple of those; else raise ValueError."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not isinstance(part, _KEY_TYPES) or (isinstance(part, int) and part.bit_length() > 64):
            raise ValueError("a dictionary key that is neither text nor number")
    return key


@dataclass(frozen=True)
class GlobalRef:
    """The name of a class or function. It is never looked up."""

    name: str

    def resolved(self) -> Any:
        """Return the dtype or storage kind that the name stands for, or itself."""
        return DTYPES.get(self.name) or STORAGES.get(self.name) or self


class InertRecord:
    """Stands where a pickle wanted an object of an unknown class. Holds data, does nothing."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: Any = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def build(self, state: Any) -> None:
        """Keep what the object would have been given as its state."""
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.name}>"


@dataclass(frozen=True)
class StorageKind:
    """A torch storage class: what one element of the storage is."""

    dtype: torch.dtype


@dataclass(frozen=True)
class StorageRef:
    """A storage of a torch file: ``count`` elements of ``dtype`` under ``key``."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Length of the storage in bytes."""
        return self.count * self.dtype.itemsize

    @staticmethod
    def from_persistent_id(identifier: tuple[Any, ...]) -> StorageRef:
        """Read ``("storage", kind, key, location, count, ...)``. Raises ValueError if it is something else."""
        kind, key, count = identifier[1], identifier[2], identifier[4]
        if not isinstance(kind, StorageKind) or not isinstance(key, (str, int)) or type(count) is not int or count < 0:
            raise ValueError("a storage that is not described as torch does")
        if len(identifier) > 5 and identifier[5] is not None:
            raise ValueError("a storage that is a view of another, as torch wrote before 0.4")
        return StorageRef(str(key), kind.dtype, count)


@dataclass(frozen=True)
class TensorRef:
    """A tensor of a torch file: a strided view of a storage (strides and offset count elements)."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        sizes = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or len(self.shape) > MAX_RANK:
            raise ValueError(f"a tensor with {len(self.shape)} sizes and {len(self.stride)} strides")
        if any(type(size) is not int or not 0 <= size <= MAX_COUNT for size in sizes):
            raise ValueError(f"a tensor of shape {str(self.shape)[:80]} and stride {str(self.stride)[:80]}")
        if unbacked_size(self.shape, self.storage.count) is not None:
            raise ValueError(f"a tensor of shape {self.shape} in a storage of {self.storage.count} elements")
        if self.extent * self.dtype.itemsize > self.storage.nbytes:
            raise ValueError(
                f"a tensor of shape {self.shape} needs {self.extent * self.dtype.itemsize} bytes, "
                f"its storage has {self.storage.nbytes}"
            )

    @property
    def extent(self) -> int:
        """Elements of the storage that the tensor reaches."""
        if 0 in self.shape:
            return 0
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)) + 1


class NumpyType:
    """A numeric numpy dtype in the making: the name first, the byte order when its state comes."""

    def __init__(self, name: Any, *_: Any) -> None:
        code = name.lstrip("<>|=") if isinstance(name, str) else ""
        if code not in NUMPY_TYPES:
            raise ValueError(f"a numpy type that torch has not ({str(name)[:20]})")
        self.order = name.removesuffix(code)
        self.dtype = NUMPY_TYPES[code]

    def build(self, state: Any) -> None:
        """Take the byte order from ``(version, order, ...)``."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def read(self, data: Any) -> torch.Tensor:
        """Return the numbers in ``data`` as a flat tensor. Raises ValueError where it is no multiple of the type."""
        width = self.dtype.itemsize
        if not isinstance(data, (bytes, bytearray)) or not data or len(data) % width:
            raise ValueError("numpy data of another length than its type")
        ordered = bytearray(data)
        if self.order == ">":
            for position in range(width):
                ordered[position::width] = data[width - 1 - position :: width]
        return torch.frombuffer(ordered, dtype=self.dtype)


class ArrayRecord:
    """A numpy array in the making: filled when its state comes."""

    def __init__(self, *_: Any) -> None:
        self.tensor: torch.Tensor | None = None

    def build(self, state: Any) -> None:
        """Take ``(version, shape, dtype, fortran, bytes)``. Raises ValueError where they disagree."""
        _, shape, kind, fortran, data = state
        if not isinstance(kind, NumpyType):
            raise ValueError("a numpy array of objects")
        if data in (b"", bytearray()):
            self.tensor = torch.empty(shape, dtype=kind.dtype)
        elif fortran:
            self.tensor = kind.read(data).reshape(tuple(reversed(shape))).permute(*reversed(range(len(shape))))
        else:
            self.tensor = kind.read(data).reshape(shape)


def _numpy_scalar(kind: Any, data: Any = b"") -> int | float | complex | bool:
    if not isinstance(kind, NumpyType):
        raise ValueError("a numpy scalar that is no number")
    return kind.read(data)[0].item()


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise ValueError("a tensor without storage")
    return TensorRef(storage, offset, tuple(shape), tuple(stride), storage.dtype)


def _tensor_v3(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> TensorRef:
    dtype = more[2] if len(more) > 2 else None
    if not isinstance(storage, StorageRef) or not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor without storage or dtype")
    return TensorRef(storage, offset, tuple(shape), tuple(stride), dtype)


def _parameter(data: Any = None, *_: Any) -> Any:
    return data


def _from_type(function: Any, _kind: Any, arguments: Any, _state: Any = None) -> Any:
    handler = HANDLERS.get(function.name) if isinstance(function, GlobalRef) else None
    if handler is None:
        return InertRecord("tensor subclass", arguments)
    return handler(*arguments)


def _encode(text: Any = "", encoding: Any = "latin1", *_: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("text in another encoding than latin1")
    return str(text).encode("latin1")


def _mapping(*arguments: Any) -> dict[Any, Any]:
    source = arguments[-1] if arguments else ()
    if isinstance(source, (list, tuple)):
        return {checked_key(key): value for key, value in source}
    return source if isinstance(source, dict) else {}


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    return complex(real, imaginary)


def _bytes(*arguments: Any) -> bytes:
    if not arguments:
        return b""
    if len(arguments) == 1 and isinstance(arguments[0], (bytes, bytearray)):
        return bytes(arguments[0])
    return _encode(*arguments)


def _set(items: Any = ()) -> list[Any]:
    return list(items) if isinstance(items, (list, tuple)) else []


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _device(*arguments: Any) -> str:
    return ":".join(str(argument) for argument in arguments)


HANDLERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "_codecs.encode": _encode,
    "numpy.dtype": NumpyType,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": ArrayRecord,
    "numpy._core.multiarray._reconstruct": ArrayRecord,
}
for _module in ("builtins", "__builtin__"):
    HANDLERS |= {
        f"{_module}.set": _set,
        f"{_module}.frozenset": _set,
        f"{_module}.bytearray": _bytes,
        f"{_module}.bytes": _bytes,
        f"{_module}.complex": _complex,
        f"{_module}.dict": _mapping,
    }

DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}
STORAGES: dict[str, StorageKind] = {
    "torch.storage.UntypedStorage": StorageKind(torch.uint8),
    "torch.UntypedStorage": StorageKind(torch.uint8),
    "torch.DoubleStorage": StorageKind(torch.float64),
    "torch.FloatStorage": StorageKind(torch.float32),
    "torch.HalfStorage": StorageKind(torch.float16),
    "torch.BFloat16Storage": StorageKind(torch.bfloat16),
    "torch.LongStorage": StorageKind(torch.int64),
    "torch.IntStorage": StorageKind(torch.int32),
    "torch.ShortStorage": StorageKind(torch.int16),
    "torch.CharStorage": StorageKind(torch.int8),
    "torch.ByteStorage": StorageKind(torch.uint8),
    "torch.BoolStorage": StorageKind(torch.bool),
    "torch.ComplexFloatStorage": StorageKind(torch.complex64),
    "torch.ComplexDoubleStorage": StorageKind(torch.complex128),
}
STORAGES |= {name.replace("torch.", "torch.cuda."): kind for name, kind in STORAGES.items() if name.endswith("Storage")}

NUMPY_TYPES: dict[str, torch.dtype] = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
    "c8": torch.complex64,
    "c16": torch.complex128,
}
_KEY_TYPES = (str, bytes, int, float, type(None), torch.dtype, GlobalRef, InertRecord)
_INERT_NAMES = frozenset({"numpy.ndarray", "torch.Tensor", "torch._tensor.Tensor"})
KNOWN_GLOBALS: frozenset[str] = frozenset(HANDLERS) | frozenset(DTYPES) | frozenset(STORAGES) | _INERT_NAMES
