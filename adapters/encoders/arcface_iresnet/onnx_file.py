"""Reads what is needed of an ONNX file, without the package onnx: nodes, attributes and constant tensors.

A small reader of the protobuf wire format (protobuf.dev, "Encoding") with the field numbers of onnx.proto (ONNX,
Apache-2.0). It reads data only; nothing in a file is ever run.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ...errors import BadCheckpoint

Value = int | float | str | tuple[int, ...]
_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_NODES = 20_000


@dataclass(frozen=True)
class Constant:
    """A tensor of the file, not yet read.

    Attributes:
        shape: its sides.
        kind: ONNX type number.
        raw: little-endian bytes, or None where the numbers are elsewhere.
        numbers: whole numbers that were written one by one (of half floats: their bits).
        path: the ONNX file.
        place: ``location``, ``offset`` and ``length`` of numbers that are in another file.
    """

    shape: tuple[int, ...]
    kind: int
    raw: memoryview | None
    numbers: tuple[int, ...]
    path: Path
    place: Mapping[str, str]

    def tensor(self) -> Tensor:
        """The numbers, as float32 where they are fractions.

        Raises:
            BadCheckpoint: a type without use here, or fewer numbers than the shape needs.
        """
        dtype = _DTYPES.get(self.kind)
        if dtype is None:
            raise _damaged(self.path, f"a constant of ONNX type {self.kind}")
        if self.raw is None and not self.place:
            read = torch.tensor(self.numbers, dtype=torch.int64)
            read = read.to(torch.int16).view(dtype) if dtype.itemsize == 2 else read
        else:
            raw = self.raw if self.raw is not None else self._beside()
            if len(raw) != math.prod(self.shape) * dtype.itemsize:
                raise _damaged(self.path, f"{len(raw)} bytes for a constant of shape {self.shape}")
            read = torch.frombuffer(bytearray(raw), dtype=dtype) if len(raw) else torch.empty(0, dtype=dtype)
        if read.numel() != math.prod(self.shape):
            raise _damaged(self.path, f"{read.numel()} numbers for a constant of shape {self.shape}")
        return read.to(torch.float32 if dtype.is_floating_point else torch.int64).reshape(self.shape)

    def _beside(self) -> memoryview:
        """Numbers in a file of their own in the same folder, as large exports keep them."""
        location = PurePosixPath(self.place.get("location", ""))
        if len(location.parts) != 1 or location.parts[0] in (".", ".."):
            raise _damaged(self.path, f"numbers at {str(location)!r}, outside its folder")
        file = self.path.parent / location.name
        if not file.is_file():
            raise BadCheckpoint(
                self.path.name,
                expected=f"the file {location.name} beside it",
                found="none",
                cure="keep both files together",
            )
        start, length = self.place.get("offset", "0"), self.place.get("length", "")
        if not start.isdecimal() or not (length.isdecimal() or length == ""):
            raise _damaged(self.path, f"numbers at place {start!r} of length {length!r}")
        with file.open("rb") as opened:
            opened.seek(int(start))
            return memoryview(opened.read(int(length) if length else -1))


@dataclass(frozen=True)
class Node:
    """One operation: its kind, the names of its inputs and outputs, and its settings."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[str, Value | Constant] = field(default_factory=dict)

    def number(self, name: str, default: float) -> float:
        """A setting that is one number."""
        value = self.settings.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def whole_numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A setting that is a list of whole numbers."""
        value = self.settings.get(name, default)
        return value if isinstance(value, tuple) else default


@dataclass(frozen=True)
class OnnxGraph:
    """A network: nodes in the file's (topological) order, constants, and what goes in and out."""

    path: Path
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> OnnxGraph:
    """Read the graph of an ONNX file.

    Raises:
        BadCheckpoint: missing, empty, cut off, or no ONNX file.
    """
    try:
        with path.open("rb") as file:
            content = memoryview(file.read())
    except OSError as error:
        raise BadCheckpoint(
            path.name, expected="a readable ONNX file", found=error.strerror or str(error), cure="check the path"
        ) from error
    try:
        graphs = [part for number, part in _fields(content) if number == 7 and isinstance(part, memoryview)]
        if len(graphs) != 1:
            raise _damaged(path, "no network in it")
        return _graph(path, graphs[0])
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise _damaged(path, f"a damaged or cut off one ({error})") from error


def _graph(path: Path, content: memoryview) -> OnnxGraph:
    nodes: list[Node] = []
    constants: dict[str, Constant] = {}
    names: dict[int, list[str]] = {11: [], 12: []}
    for number, part in _fields(content):
        if not isinstance(part, memoryview):
            continue
        if number == 1:
            nodes.append(_node(path, part))
        elif number == 5:
            name, constant = _constant(path, part)
            constants[name] = constant
        elif number in names:
            names[number].append(_text(_first(part, 1)))
    if len(nodes) > _MAX_NODES:
        raise _damaged(path, f"{len(nodes)} operations")
    # Old exports list every constant among the inputs too.
    inputs = tuple(name for name in names[11] if name not in constants)
    return OnnxGraph(path, tuple(nodes), constants, inputs, tuple(names[12]))


def _node(path: Path, content: memoryview) -> Node:
    inputs, outputs, kind = [], [], ""
    settings: dict[str, Value | Constant] = {}
    for number, part in _fields(content):
        if not isinstance(part, memoryview):
            continue
        if number == 1:
            inputs.append(_text(part))
        elif number == 2:
            outputs.append(_text(part))
        elif number == 4:
            kind = _text(part)
        elif number == 5:
            settings.update(_setting(path, part))
    return Node(kind, tuple(inputs), tuple(outputs), settings)


def _setting(path: Path, content: memoryview) -> dict[str, Value | Constant]:
    """An attribute: number 2 is a float, 3 an integer, 4 a text, 5 a tensor, 8 a list of integers."""
    name, many = "", []
    found: Value | Constant | None = None
    for number, part in _fields(content):
        if number == 1 and isinstance(part, memoryview):
            name = _text(part)
        elif number == 2 and isinstance(part, memoryview):
            found = float(struct.unpack("<f", part)[0])
        elif number == 3 and isinstance(part, int):
            found = _signed(part)
        elif number == 4 and isinstance(part, memoryview):
            found = bytes(part).decode("utf-8", "replace")
        elif number == 5 and isinstance(part, memoryview):
            found = _constant(path, part)[1]
        elif number == 8:
            many += _integers(part)
    if found is None:
        found = tuple(many)
    return {name: found}


def _constant(path: Path, content: memoryview) -> tuple[str, Constant]:
    """A tensor: 1 shape, 2 type, 8 name, 9 bytes, 13 place; 4 floats, 10 doubles, 5 and 7 whole numbers."""
    shape: list[int] = []
    name, kind = "", 0
    raw: list[memoryview] = []
    numbers: list[int] = []
    place: dict[str, str] = {}
    for number, part in _fields(content):
        if number == 1:
            shape += _integers(part)
        elif number in (5, 7):
            numbers += _integers(part)
        elif isinstance(part, int):
            kind = part if number == 2 else kind
        elif number == 8:
            name = _text(part)
        elif number in (4, 9, 10):
            raw.append(part)
        elif number == 13:
            place[_text(_first(part, 1))] = _text(_first(part, 2))
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    joined = raw[0] if len(raw) == 1 else memoryview(b"".join(raw)) if raw else None
    return name, Constant(tuple(shape), kind, joined, tuple(numbers), path, place)


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message: whole numbers as they are, everything else as bytes."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _varint(content, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(content, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(content, position)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position + length > end:
            raise ValueError(f"a field of {length} bytes where {end - position} are left")
        yield number, content[position : position + length]
        position += length


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number without end")


def _integers(part: int | memoryview) -> list[int]:
    """A repeated integer, packed or not."""
    if isinstance(part, int):
        return [_signed(part)]
    found, position = [], 0
    while position < len(part):
        value, position = _varint(part, position)
        found.append(_signed(value))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _first(content: memoryview, wanted: int) -> memoryview:
    for number, part in _fields(content):
        if number == wanted and isinstance(part, memoryview):
            return part
    return memoryview(b"")


def _text(part: memoryview) -> str:
    return bytes(part).decode("utf-8")


def _damaged(path: Path, found: str) -> BadCheckpoint:
    return BadCheckpoint(
        path.name,
        expected="a whole ONNX network",
        found=found,
        cure="download the file again and compare its size with the publisher's",
    )
