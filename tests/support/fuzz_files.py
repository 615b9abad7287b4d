"""Damaged, lying and attacking checkpoints, made from good ones by a seeded generator."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
ODD_NAMES = (
    "../../../../evil", "..\\..\\evil", "/etc/passwd", "C:\\evil", "CON", "a\x00b", "", ".", "..", "\ud7ff",
    "x" * 5000, "__proto__", "__class__.__init__", "state_dict." * 40 + "w", "脸/\u202e.weight", "%n%s{0}", "\n\r\t",
)  # fmt: skip
_SIZES = (0, 1, 2, 3, 7, 64, 511, 4096, 2**15)
_LARGEST = 2**38


class Trap:
    """Unpickled by a careless reader, it runs a program that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def damaged(data: bytes, dice: random.Random) -> tuple[str, bytes]:
    """A file with a few bytes that are not as they were: what happened, and the new content."""
    kind = dice.choice(("flip", "flip head", "flip tail", "cut", "grow", "zeros", "swap", "length", "repeat"))
    return kind, _DAMAGE[kind](bytearray(data), dice)


def _flip(data: bytearray, dice: random.Random, low: int = 0, high: int | None = None) -> bytes:
    for _ in range(dice.choice((1, 1, 2, 8, 64))):
        data[dice.randrange(low, high or len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _zeros(data: bytearray, dice: random.Random) -> bytes:
    start = dice.randrange(len(data))
    length = min(dice.choice((1, 16, 512, 65536)), len(data) - start)
    data[start : start + length] = bytes(length)
    return bytes(data)


def _swap(data: bytearray, dice: random.Random) -> bytes:
    length = min(256, len(data) // 2)
    one, two = dice.randrange(len(data) - length), dice.randrange(len(data) - length)
    first = bytes(data[one : one + length])
    data[one : one + length] = data[two : two + length]
    data[two : two + length] = first
    return bytes(data[:])


def _length(data: bytearray, dice: random.Random) -> bytes:
    lies = (0, 1, 2**31 - 1, 2**32, 2**63, 2**64 - 1, len(data), len(data) - 8, 100_000_000, dice.getrandbits(64))
    return struct.pack("<Q", dice.choice(lies)) + bytes(data[8:])


_DAMAGE: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "flip": _flip,
    "flip head": lambda data, dice: _flip(data, dice, 0, min(len(data), 4096)),
    "flip tail": lambda data, dice: _flip(data, dice, max(0, len(data) - 4096)),
    "cut": lambda data, dice: bytes(data[: dice.randrange(len(data))]),
    "grow": lambda data, dice: bytes(data) + dice.randbytes(dice.choice((1, 8, 4096))),
    "zeros": _zeros,
    "swap": _swap,
    "length": _length,
    "repeat": lambda data, dice: bytes(data) * 2,
}


def lying_shapes(shapes: Mapping[str, Any], dice: random.Random) -> tuple[str, Shapes]:
    """Names and shapes of a file that is not quite of its family."""
    lying: Shapes = {name: tuple(shape) for name, shape in shapes.items()}
    names = list(lying)
    kind = dice.choice(("shape", "shape", "shape", "shapes", "missing", "half", "renamed", "more", "wrapped", "number"))
    if kind in ("shape", "shapes"):
        for name in dice.sample(names, min(len(names), 1 if kind == "shape" else 20)):
            lying[name] = other_shape(lying[name], dice)
    if kind == "number":
        lying = {_renumbered(name, dice): shape for name, shape in lying.items()}
    if kind in ("missing", "half"):
        for name in dice.sample(names, 1 if kind == "missing" else len(names) // 2):
            del lying[name]
    if kind == "renamed":
        lying[dice.choice(ODD_NAMES)] = lying.pop(dice.choice(names))
    if kind == "more":
        lying[f"{dice.choice(names)}.{dice.choice(ODD_NAMES)}"] = (3,)
    if kind == "wrapped":
        wrap = dice.choice(("module.", "model.", "state_dict.", "../", "a."))
        lying = {wrap + name: shape for name, shape in lying.items()}
    total = sum(math.prod(shape) for shape in lying.values())
    return (kind, lying) if lying and total < _LARGEST else ("none", {name: (1,) for name in names})


def _renumbered(name: str, dice: random.Random) -> str:
    """Layer numbers that are too high, of other digits, or none at all."""
    parts = name.split(".")
    digits = [place for place, part in enumerate(parts) if part.isdigit()]
    if digits and not dice.randrange(20):
        parts[dice.choice(digits)] = dice.choice(("999999", "-1", "²", "٣", "1e3", "00", str(10**30), ""))
    return ".".join(parts)


def other_shape(shape: tuple[int, ...], dice: random.Random) -> tuple[int, ...]:
    """A shape that differs from the given one."""
    changed = list(shape)
    kind = dice.randrange(6)
    if kind == 0 or not changed:
        changed.insert(0, dice.choice(_SIZES))
    elif kind == 1:
        changed.pop(dice.randrange(len(changed)))
    elif kind == 2:
        changed.reverse()
    elif kind == 3:
        changed = []
    else:
        changed[dice.randrange(len(changed))] = dice.choice(_SIZES)
    return tuple(changed)


def lying_tensors(tensors: Mapping[str, Tensor], dice: random.Random) -> tuple[str, dict[str, Tensor]]:
    """Real tensors under the names and shapes of `lying_shapes`, or of other types and values."""
    kind = dice.choice(("shapes", "shapes", "shapes", "dtype", "values"))
    if kind == "shapes":
        kind, shapes = lying_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, dice)
        if sum(math.prod(shape) for shape in shapes.values()) > 30_000_000:
            return "none", {}
        same = {name: tensors[name] for name in shapes if name in tensors and tensors[name].shape == shapes[name]}
        return kind, {name: same.get(name, torch.zeros(shape)) for name, shape in shapes.items()}
    lying = dict(tensors)
    for name in dice.sample(list(lying), min(len(lying), 3)):
        if kind == "dtype":
            wanted = dice.choice((torch.int64, torch.bool, torch.uint8, torch.complex64, torch.float64, torch.bfloat16))
            lying[name] = lying[name].to(wanted)
        else:
            value = dice.choice((math.nan, math.inf, -1.0, 6e4, 0.0))
            lying[name] = torch.full_like(lying[name], value) if lying[name].is_floating_point() else lying[name]
    return kind, lying


def duplicate_names(shapes: Mapping[str, Any]) -> bytes:
    """A safetensors file whose header has its first name twice."""
    name, shape = next(iter(shapes.items()))
    size = 4 * math.prod(shape)
    entry = json.dumps({"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]})
    text = f"{{{json.dumps(name)}: {entry}, {json.dumps(name)}: {entry}}}".encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def huge_header(names: int) -> bytes:
    """A safetensors file of very many empty tensors."""
    entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = ("{" + ",".join(f'"t.{number}":{entry}' for number in range(names)) + "}").encode()
    return struct.pack("<Q", len(text)) + text


def attacks(mark: Path) -> Iterator[tuple[str, bytes]]:
    """Torch files and archives that want to run something, write somewhere, or unpack without end."""
    trap = Trap(mark)
    buffer = io.BytesIO()
    torch.save({"image_proj": {"w": torch.ones(3)}, "ip_adapter": trap}, buffer)
    yield "trap beside tensors", buffer.getvalue()
    for protocol in range(6):
        yield f"trap of protocol {protocol}", pickle.dumps({"image_proj": trap}, protocol=protocol)
        yield f"trap in a torch zip of protocol {protocol}", _zip({"a/data.pkl": pickle.dumps(trap, protocol)})
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3), "x": trap}, buffer, _use_new_zipfile_serialization=False)
    yield "trap in the older form", buffer.getvalue()
    yield "names that lead out", _zip({"../../evil": b"x", "/etc/evil": b"x", "a/data.pkl": pickle.dumps({})})
    yield "bomb", _zip({"a/data.pkl": bytes(60_000_000)}, zipfile.ZIP_DEFLATED)
    bomb = _zip({"a/data.pkl": bytes(20_000_000)}, zipfile.ZIP_DEFLATED)
    yield "bomb within a bomb", _zip({"a/data.pkl": bomb, "a/data/0": bomb}, zipfile.ZIP_DEFLATED)
    yield "two mains", _zip({"a/data.pkl": b"N.", "b/data.pkl": b"N."})
    yield "a program", _zip({"a/data.pkl": b"N.", "a/code/x.py": b"import os", "a/constants.pkl": b"N."})
    yield "levels without end", _zip({"a/data.pkl": b"\x80\x02" + b"(" * 20_000 + b"l." * 3})
    yield "nested lists", _zip({"a/data.pkl": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."})
    yield "laughs", _zip({"a/data.pkl": _laughs()})
    yield "itself", _zip({"a/data.pkl": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."})
    yield "long number", _zip({"a/data.pkl": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01."})
    yield "long text", _zip({"a/data.pkl": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"a."})
    yield "far memo", _zip({"a/data.pkl": b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."})
    yield "noise", _zip({"a/data.pkl": bytes(range(256)) * 40})


def _laughs() -> bytes:
    """A list of ten times the list before, thirty times over."""
    steps = [b"\x80\x02]q\x00N" + b"a"]
    for number in range(30):
        again = b"h" + bytes([number])
        steps.append(b"0]q" + bytes([number + 1]) + b"(" + again * 10 + b"e")
    return b"".join(steps) + b"."


def _zip(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()
