"""Reads a pickle without running it: nothing that a pickle names is ever looked up, imported or called.

The opcodes are those of `pickletools` (standard library), which parses and never executes. A small stack machine turns
them into plain containers (sets become lists), descriptions of tensors, and, for every other class or function, an
`InertRecord`.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from .errors import BadCheckpoint
from .inert_values import (
    HANDLERS,
    KNOWN_GLOBALS,
    ArrayRecord,
    GlobalRef,
    InertRecord,
    NumpyType,
    StorageRef,
    checked_key,
)
from .nested import printable

MAX_OPCODES = 5_000_000
MAX_LINE = 65_536
MAX_STACK = 2_000_000
MAX_COPIED = 1_000_000_000


class _Malformed(Exception):
    """A pickle that breaks its own rules; becomes `BadCheckpoint` with the file's name."""


_BROKEN = (
    _Malformed, ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, MemoryError, RecursionError
)  # fmt: skip


class ClampedReader:
    """Reads at most what the file still has, so that a length that lies cannot allocate memory."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = end

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes."""
        return self._file.read(max(0, min(count, self._end - self._file.tell())))

    def readline(self) -> bytes:
        """Return one line, cut at a length no honest checkpoint needs."""
        return self._file.readline(MAX_LINE)

    def tell(self) -> int:
        """Position in the file."""
        return self._file.tell()


@dataclass
class InertPickle:
    """What one pickle holds.

    Attributes:
        value: plain containers with `TensorRef`, `ArrayRecord` and `InertRecord` among their leaves.
        globals: every ``module.name`` the pickle mentions, in order of first mention (a dict of None).
        storages: descriptions of the storages the tensors lie in, by key.
    """

    value: Any = None
    globals: dict[str, None] = field(default_factory=dict)
    storages: dict[str, StorageRef] = field(default_factory=dict)

    @property
    def foreign(self) -> tuple[str, ...]:
        """The names beyond tensors, plain containers and numpy values."""
        return tuple(name for name in self.globals if name not in KNOWN_GLOBALS)


def read_inert(file: BinaryIO, end: int, what: str) -> InertPickle:
    """Read one pickle from ``file`` up to its STOP opcode, never beyond the byte ``end``.

    Raises:
        BadCheckpoint: the bytes are not a pickle, or end too early, or are larger than any checkpoint's.
    """
    machine = _Machine()
    try:
        machine.run(pickletools.genops(ClampedReader(file, end)))  # type: ignore[arg-type]
    except _BROKEN as error:
        raise BadCheckpoint(
            what,
            expected="a complete torch pickle",
            found=f"one that breaks off or is malformed ({printable(str(error)[:200]) or type(error).__name__})",
            cure="download the file again and compare its size with the publisher's",
        ) from error
    return machine.result


class _Machine:
    """The stack machine of one pickle."""

    def __init__(self) -> None:
        self.result = InertPickle()
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self, operations: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> None:
        """Execute until STOP."""
        for count, (opcode, argument, _) in enumerate(operations):
            if count > MAX_OPCODES or len(self.stack) > MAX_STACK:
                raise _Malformed("more objects than a checkpoint has")
            name = opcode.name
            if name == "STOP":
                self.result.value = self.stack.pop()
                return
            if name in _LITERALS:
                self.stack.append(argument)
            else:
                _OPERATIONS[name](self, argument)
        raise _Malformed("no STOP opcode")

    def pop_mark(self) -> list[Any]:
        """Return the items above the newest mark and drop the mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def mention(self, name: str) -> GlobalRef:
        """Note a class or function by name; it stays a name."""
        self.result.globals[name] = None
        return GlobalRef(name)

    def call(self, function: Any, arguments: Any) -> Any:
        """Stand in for ``function(*arguments)``: a description for what is known, a record for the rest."""
        if not isinstance(function, GlobalRef):
            return InertRecord(f"call of {_kind(function)}", arguments)
        handler = HANDLERS.get(function.name)
        if handler is None or not isinstance(arguments, tuple):
            return InertRecord(function.name, arguments)
        # A few bytes can ask for the same large copy again and again.
        self.copied += sum(len(value) for value in arguments if hasattr(value, "__len__"))
        if self.copied > MAX_COPIED:
            raise _Malformed("more work than a checkpoint needs")
        return handler(*arguments)

    def storage(self, identifier: Any) -> Any:
        """Describe the storage (or name the module class) that a persistent id stands for."""
        if isinstance(identifier, tuple) and len(identifier) > 1 and identifier[0] == "module":
            return identifier[1]
        if not (isinstance(identifier, tuple) and len(identifier) >= 5 and identifier[0] == "storage"):
            raise _Malformed("a persistent id that is no storage")
        described = StorageRef.from_persistent_id(identifier)
        known = self.result.storages.setdefault(described.key, described)
        if known != described:
            raise _Malformed(f"storage {described.key} described twice and differently")
        return known


def _kind(value: Any) -> str:
    return value.name if isinstance(value, InertRecord) else type(value).__name__


def _push_mark(machine: _Machine, _: Any) -> None:
    machine.marks.append(machine.stack)
    machine.stack = []
    if len(machine.marks) > MAX_STACK:
        raise _Malformed("too many marks")


def _container(build: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def operation(machine: _Machine, _: Any) -> None:
        items = machine.pop_mark()
        machine.stack.append(build(items))

    return operation


def _empty(build: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    def operation(machine: _Machine, _: Any) -> None:
        machine.stack.append(build())

    return operation


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def operation(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise _Malformed("stack underflow")
        items = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(items)

    return operation


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {checked_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)


def _append(machine: _Machine, _: Any) -> None:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])


def _appends(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    _extend(machine.stack[-1], items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    if isinstance(machine.stack[-1], dict):
        machine.stack[-1][checked_key(key)] = value


def _set_items(machine: _Machine, _: Any) -> None:
    pairs = _pairs(machine.pop_mark())
    if isinstance(machine.stack[-1], dict):
        machine.stack[-1].update(pairs)


def _pop(machine: _Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.pop_mark()


def _duplicate(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.stack[-1])


def _get(machine: _Machine, index: int) -> None:
    machine.stack.append(machine.memo[index])


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(machine.mention(argument.replace(" ", ".")).resolved())


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise _Malformed("a global whose name is no text")
    machine.stack.append(machine.mention(f"{module}.{name}").resolved())


def _extension(machine: _Machine, code: int) -> None:
    machine.stack.append(machine.mention(f"copyreg extension {code}"))


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(function, arguments))


def _new_object_keywords(machine: _Machine, _: Any) -> None:
    keywords, arguments, function = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.stack.append(InertRecord(_kind_of_callable(function), (arguments, keywords)))


def _kind_of_callable(function: Any) -> str:
    return function.name if isinstance(function, GlobalRef) else f"call of {_kind(function)}"


def _instance(machine: _Machine, argument: str) -> None:
    arguments = tuple(machine.pop_mark())
    machine.stack.append(machine.call(machine.mention(argument.replace(" ", ".")), arguments))


def _object(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.stack.append(machine.call(items[0], tuple(items[1:])))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if isinstance(target, (InertRecord, ArrayRecord, NumpyType)):
        target.build(state)


def _persistent_text(machine: _Machine, argument: str) -> None:
    machine.stack.append(machine.storage(argument))


def _persistent(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.storage(machine.stack.pop()))


def _protocol(machine: _Machine, number: int) -> None:
    del machine
    if number > pickle.HIGHEST_PROTOCOL:
        raise _Malformed(f"protocol {number}")


def _nothing(machine: _Machine, _: Any) -> None:
    del machine


def _buffer(machine: _Machine, _: Any) -> None:
    raise _Malformed("data outside the pickle")


_LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip

_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": _empty(lambda: None),
    "NEWTRUE": _empty(lambda: True),
    "NEWFALSE": _empty(lambda: False),
    "EMPTY_LIST": _empty(list),
    "EMPTY_TUPLE": _empty(tuple),
    "EMPTY_DICT": _empty(dict),
    "EMPTY_SET": _empty(list),
    "LIST": _container(list),
    "TUPLE": _container(tuple),
    "DICT": _container(_pairs),
    "FROZENSET": _container(list),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _duplicate,
    "MARK": _push_mark,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _build,
    "PERSID": _persistent_text,
    "BINPERSID": _persistent,
    "PROTO": _protocol,
    "FRAME": _nothing,
    "NEXT_BUFFER": _buffer,
    "READONLY_BUFFER": _buffer,
}
