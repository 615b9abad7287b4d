"""No opcode of a pickle runs anything, and what comes out is data or an inert record."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.errors import BadCheckpoint
from likeness_pack.adapters.inert_pickle import read_inert
from likeness_pack.adapters.inert_values import ArrayRecord, InertRecord, StorageRef, TensorRef
from likeness_pack.adapters.nested import leaves


def read(data: bytes):
    return read_inert(io.BytesIO(data), len(data), "test")


def payload(opcodes: str, marker: Path) -> bytes:
    """A pickle that would create ``marker`` if its opcodes were obeyed."""
    command = f"touch {marker}".encode()
    text = b"\x8c" + bytes([len(command)]) + command
    name = os.name.encode()
    stack_global = b"\x8c" + bytes([len(name)]) + name + b"\x8c\x06system\x93"
    found = {
        "GLOBAL REDUCE": b"\x80\x02c" + name + b"\nsystem\n" + text + b"\x85R.",
        "STACK_GLOBAL REDUCE": b"\x80\x04" + stack_global + text + b"\x85R.",
        "INST": b"\x80\x02(" + text + b"i" + name + b"\nsystem\n.",
        "OBJ": b"\x80\x02(c" + name + b"\nsystem\n" + text + b"o.",
        "NEWOBJ": b"\x80\x02c" + name + b"\nsystem\n" + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + stack_global + text + b"\x85}\x92.",
        "BUILD": b"\x80\x02cbuiltins\nobject\n)\x81}\x8c\x0c__setstate__c" + name + b"\nsystem\nsb" + text + b"b.",
        "REDUCE of a result": b"\x80\x02cbuiltins\ngetattr\nc"
        + name
        + b"\nsystem\n\x8c\x08__call__\x86R"
        + text
        + b"\x85R.",
        "EXT1": b"\x80\x02\x82\xf0" + text + b"\x85R.",
    }
    return found[opcodes]


KINDS = [
    "GLOBAL REDUCE",
    "STACK_GLOBAL REDUCE",
    "INST",
    "OBJ",
    "NEWOBJ",
    "NEWOBJ_EX",
    "BUILD",
    "REDUCE of a result",
    "EXT1",
]


@pytest.mark.parametrize("opcodes", KINDS)
def test_no_opcode_runs_code(tmp_path, opcodes):
    marker = tmp_path / "ran"
    if opcodes == "EXT1":
        copyreg.add_extension(os.name, "system", 0xF0)
    try:
        result = read(payload(opcodes, marker))
    finally:
        if opcodes == "EXT1":
            copyreg.remove_extension(os.name, "system", 0xF0)
    assert isinstance(result.value, InertRecord)
    assert result.foreign
    assert not marker.exists()


def test_the_payload_would_run_under_the_ordinary_unpickler(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(payload("GLOBAL REDUCE", marker))  # noqa: S301  (shows that the test above can fail)
    assert marker.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_come_back_as_they_are(protocol):
    shared = [1, 2.5, None, True, -(2**40)]
    value = {"a": shared, "b": (shared, "text", b"bytes"), "c": {"d": OrderedDict(x=1)}, 3: (), "e": "ü" * 300}
    assert read(pickle.dumps(value, protocol)).value == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_sets_become_lists(protocol):
    value = read(pickle.dumps({"s": {1}, "f": frozenset({2})}, protocol)).value
    assert value == {"s": [1], "f": [2]}


class Settings:
    def __init__(self) -> None:
        self.rate = 0.5


def test_an_object_becomes_a_record_that_keeps_its_state():
    result = read(pickle.dumps({"settings": Settings(), "a": 1}))
    record = result.value["settings"]
    assert isinstance(record, InertRecord) and record.name.endswith("test_inert_pickle.Settings")
    assert record.state == {"rate": 0.5}
    assert result.foreign == (record.name,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">i2", "|u1", "<i8", "|b1"])
def test_numpy_arrays_become_tensors(protocol, order, kind):
    numpy = pytest.importorskip("numpy")
    array = numpy.asarray(numpy.arange(6).reshape(2, 3) % 2, kind, order=order)
    record = read(pickle.dumps(array, protocol)).value
    assert isinstance(record, ArrayRecord)
    assert record.tensor.tolist() == array.tolist()


def test_numpy_objects_are_refused():
    numpy = pytest.importorskip("numpy")
    with pytest.raises(BadCheckpoint, match="numpy type"):
        read(pickle.dumps(numpy.array([Settings()], dtype=object), 2))


def persistent(kind: bytes = b"FloatStorage", key: bytes = b"0", count: bytes = b"K\x06") -> bytes:
    """Opcodes that push a storage."""
    return b"(\x8c\x07storagectorch\n" + kind + b"\n\x8c" + bytes([len(key)]) + key + b"\x8c\x03cpu" + count + b"tQ"


def tensor_pickle(shape: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return b"\x80\x02" + rebuild + b"(" + persistent() + offset + shape + stride + b"\x89}tR."


def test_a_tensor_is_described_by_its_storage():
    value = read(tensor_pickle(b"K\x02K\x03\x86", b"K\x03K\x01\x86")).value
    assert value == TensorRef(StorageRef("0", torch.float32, 6), 0, (2, 3), (3, 1), torch.float32)


LONG_63 = b"\x8a\x09" + struct.pack("<Q", 2**63) + b"\0"


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [
        (b"K\x02K\x04\x86", b"K\x04K\x01\x86", b"K\x00"),
        (b"K\x02K\x03\x86", b"K\x03K\x01\x86", b"K\x01"),
        (b"J\xff\xff\xff\xffK\x03\x86", b"K\x03K\x01\x86", b"K\x00"),
        (b"K\x02\x85", b"J\xff\xff\xff\xff\x85", b"K\x01"),
        (LONG_63 + b"\x85", b"K\x00\x85", b"K\x00"),
        (b"K\x02\x85", b"K\x01K\x01\x86", b"K\x00"),
        (b"\x8c\x01x\x85", b"K\x01\x85", b"K\x00"),
        (b"K\x02\x85", b"K\x01\x85", b"N"),
        (b"K\x00J\x00\x00\x00\x40\x86", b"K\x01K\x01\x86", b"K\x00"),
        (b"J\x00\x00\x00\x40\x85", b"K\x00\x85", b"K\x00"),
    ],
    ids=[
        *("too large", "offset", "negative", "negative stride", "2^63", "ranks differ", "text", "no offset"),
        *("empty and endless", "one value and endless"),
    ],
)
def test_a_tensor_that_lies_is_refused(shape, stride, offset):
    with pytest.raises(BadCheckpoint, match="malformed"):
        read(tensor_pickle(shape, stride, offset))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02}",
        b".",
        b"\x80\x02R.",
        b"\x80\x02s.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x02\x8f\x99\xff.",
        b"\xff\xff\xff",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"\x80\x02T\xff\xff\xff\x7fx.",
        b"\x80\x02K\x01Q.",
        b"\x80\x05\x97.",
        b"\x80\x02]K\x01K\x02s",
        b"\x80\x02(K\x01d.",
    ],
)
def test_broken_pickles_are_one_typed_error(data):
    with pytest.raises(BadCheckpoint):
        read(data)


def test_large_memo_numbers_allocate_nothing():
    assert read(b"\x80\x02Nr\xff\xff\xff\xff.").value is None


def test_a_nested_key_is_refused_before_it_is_hashed():
    nested = b")" + b"\x85" * 1_000_000
    with pytest.raises(BadCheckpoint, match="key"):
        read(b"\x80\x02}" + nested + b"Ns.")


def test_deep_nesting_neither_hangs_nor_overflows():
    result = read(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")
    with pytest.raises(BadCheckpoint, match="levels"):
        list(leaves(result.value, "test"))


def test_shared_containers_that_multiply_are_stopped():
    level = {"a": 1}
    for _ in range(50):
        level = {"a": level, "b": level}
    with pytest.raises(BadCheckpoint, match="entries"):
        list(leaves(read(pickle.dumps(level, 2)).value, "test"))


def test_a_container_that_contains_itself_is_stopped():
    loop: dict[str, object] = {}
    loop["self"] = loop
    with pytest.raises(BadCheckpoint, match="contains itself"):
        list(leaves(read(pickle.dumps(loop, 2)).value, "test"))


def test_copies_asked_for_again_and_again_are_stopped():
    large = b"X" + struct.pack("<I", 10_000_000) + b"x" * 10_000_000 + b"q\x00"
    repeat = b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R0"
    with pytest.raises(BadCheckpoint, match="more work"):
        read(b"\x80\x02" + large + repeat * 1000 + b".")
