"""Reads the list of NumPy arrays in an lz4-compressed joblib file without unpickling it.

joblib writes an ordinary pickle in which each array is an object ``NumpyArrayWrapper`` (shape, order, dtype),
followed, right after the opcode that fills the object, by the array's bytes. ``pickletools.genops`` only names
opcodes and never builds anything; the small machine here understands the few that such a list needs, takes every
class for an inert label and refuses the rest.
Source of the layout: joblib 1.x, ``numpy_pickle.py`` (BSD-3).
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ...errors import UnsafeCheckpoint

_MARK = object()
_CONSTANTS: dict[str, Any] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "NONE": lambda: None}
_SCALARS = {"SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2"}
_BOOLEANS = {"NEWTRUE": True, "NEWFALSE": False}
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_LABELS = {_WRAPPER, "numpy.ndarray", "numpy.dtype"}
_DTYPES: dict[str, np.dtype[Any]] = {"f4": np.dtype("<f4"), "f8": np.dtype("<f8")}


@dataclass
class _Label:
    """A class or object named in the pickle; never imported, never called."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass
class _Machine:
    """Stack and memo of the pickle; ``data`` stands right behind the current opcode."""

    data: io.BytesIO
    what: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def refuse(self, found: str) -> UnsafeCheckpoint:
        return UnsafeCheckpoint(
            self.what,
            expected="a joblib list of float arrays",
            found=found,
            cure="install the published mtcnn package anew",
        )

    def above_mark(self) -> list[Any]:
        start = max(index for index, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def step(self, name: str, argument: Any) -> None:
        if name in _SCALARS:
            self.stack.append(argument)
        elif name in _BOOLEANS:
            self.stack.append(_BOOLEANS[name])
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise self.refuse(f"the pickle instruction {name}")


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _recall(machine: _Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


def _mark(machine: _Machine, _: Any) -> None:
    machine.stack.append(_MARK)


def _tuple(machine: _Machine, _: Any) -> None:
    machine.stack.append(tuple(machine.above_mark()))


def _tuple_of(count: int) -> Any:
    def build(machine: _Machine, _: Any) -> None:
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return build


def _set_items(machine: _Machine, _: Any) -> None:
    items = machine.above_mark()
    machine.stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _append_many(machine: _Machine, _: Any) -> None:
    items = machine.above_mark()
    machine.stack[-1].extend(items)


def _append_one(machine: _Machine, _: Any) -> None:
    item = machine.stack.pop()
    machine.stack[-1].append(item)


def _label(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if f"{module}.{name}" not in _LABELS:
        raise machine.refuse(f"the class {module}.{name}")
    machine.stack.append(_Label(f"{module}.{name}"))


def _instance(machine: _Machine, _: Any) -> None:
    arguments, label = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(_Label(label.name, arguments))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    owner = machine.stack[-1]
    if not isinstance(owner, _Label) or owner.name != _WRAPPER:
        if not isinstance(state, tuple) or ">" in state:
            raise machine.refuse("an array type that is not little-endian")
        return
    array = _read_array(machine, state)
    machine.stack[-1] = array
    # The wrapper may have been memoized before it was filled; later references mean the array.
    for index, value in machine.memo.items():
        if value is owner:
            machine.memo[index] = array


def _read_array(machine: _Machine, state: dict[str, Any]) -> np.ndarray[Any, Any]:
    code = state["dtype"].arguments[0]
    if code not in _DTYPES or state["order"] not in ("C", "F"):
        raise machine.refuse(f"an array of type {code!r} in order {state['order']!r}")
    dtype, shape = _DTYPES[code], tuple(int(size) for size in state["shape"])
    if state.get("numpy_array_alignment_bytes"):
        machine.data.read(machine.data.read(1)[0])
    raw = machine.data.read(prod(shape) * dtype.itemsize)
    if len(raw) != prod(shape) * dtype.itemsize:
        raise machine.refuse(f"{len(raw)} bytes for an array of shape {shape}")
    return np.frombuffer(raw, dtype).reshape(shape, order=state["order"]).copy()


_ACTIONS: dict[str, Any] = {
    "MEMOIZE": _memoize,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEMS": _set_items,
    "APPENDS": _append_many,
    "APPEND": _append_one,
    "STACK_GLOBAL": _label,
    "NEWOBJ": _instance,
    "REDUCE": _instance,
    "BUILD": _build,
}


def read_arrays(raw: bytes, what: str) -> list[np.ndarray[Any, Any]]:
    """The arrays of a decompressed joblib file, in file order.

    Raises:
        UnsafeCheckpoint: anything but a plain list of float32 or float64 arrays; nothing of it was run.
    """
    machine = _Machine(io.BytesIO(raw), what)
    try:
        for opcode, argument, _ in pickletools.genops(machine.data):
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, AttributeError, TypeError) as cause:
        raise machine.refuse(f"a broken file ({cause})") from cause
    arrays = machine.stack[-1] if machine.stack else None
    if not isinstance(arrays, list) or not all(isinstance(array, np.ndarray) for array in arrays):
        raise machine.refuse("something else than a list of arrays")
    return arrays
