"""The header of a torch file (zip since torch 1.6, one pickle after another before that), read without running it.

Layouts: ``torch/serialization.py``. A zip holds ``<name>/data.pkl`` and one entry ``<name>/data/<key>`` per storage;
the older form holds five pickles and then the storages, each after its element count.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import BadCheckpoint, UnsafeCheckpoint
from .inert_pickle import InertPickle, read_inert
from .inert_values import StorageRef, TensorRef
from .nested import MAX_NAME, leaves, printable
from .tensor_info import RawHeader, TensorInfo

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE = 512_000_000
_AGAIN = "download the file again and compare its size with the publisher's"
_SAVE_AGAIN = "save it again with torch.save or as safetensors"
# What the standard library raises for damaged, encrypted or unsupported archives.
_BROKEN_ZIP = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, MemoryError, struct.error)


@dataclass(frozen=True)
class TorchContents:
    """A torch file after inert reading.

    Attributes:
        pickle: its object, with descriptions for tensors.
        places: for every storage key, (position of its first byte in the file).
        fingerprint: the pickle's bytes and, in a zip, the checksums of all entries.
    """

    pickle: InertPickle
    places: dict[str, int]
    fingerprint: bytes


def read_torch_header(path: Path, contents: TorchContents) -> RawHeader:
    """Describe the tensors of ``contents``. Raises BadCheckpoint for names that collide or nest without end."""
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for name, leaf in leaves(contents.pickle.value, path.name):
        if isinstance(leaf, TensorRef):
            if name in tensors:
                raise _bad(path, "every name once", f"{name} twice after joining nested levels by a dot", _SAVE_AGAIN)
            tensors[name] = TensorInfo(leaf.shape, leaf.dtype)
        elif _is_note(leaf) and len(name) < MAX_NAME:
            metadata[name] = printable(str(leaf))
    if not tensors and contents.pickle.foreign:
        asked = printable(", ".join(contents.pickle.foreign[:5]))
        raise UnsafeCheckpoint(
            path.name,
            expected="a pickle of tensors",
            found=f"no tensors but a request for {asked}, which was not carried out",
            cure="do not use this file unless you know who made it; ask its publisher for safetensors",
        )
    numpy_needed = any(name.startswith("numpy") for name in contents.pickle.globals)
    return RawHeader(tensors, metadata, contents.fingerprint, contents.pickle.foreign, not numpy_needed)


def _is_note(leaf: Any) -> bool:
    if isinstance(leaf, int):
        return leaf.bit_length() <= 64
    return isinstance(leaf, float) or (isinstance(leaf, str) and len(leaf) < MAX_NAME)


def read_zip(path: Path, size: int) -> TorchContents:
    """Read ``data.pkl`` and the directory of a torch zip; check that every storage is there and long enough.

    Raises:
        BadCheckpoint: truncated, without ``data.pkl``, compressed, or with storages that are missing or too short.
        UnsafeCheckpoint: a TorchScript archive, which is a program.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            root = _root(path, entries)
            main = entries[root + "data.pkl"]
            if main.compress_type != zipfile.ZIP_STORED:
                raise _bad(path, "entries stored as torch does", "compressed entries", _SAVE_AGAIN)
            if main.file_size > min(MAX_PICKLE, size):
                raise _bad(path, "a small data.pkl", f"one of {main.file_size} bytes", _SAVE_AGAIN)
            data = archive.read(main)
            with archive.open(main) as stream:
                pickle = read_inert(stream, len(data), path.name)  # type: ignore[arg-type]
            order = archive.read(entries[root + "byteorder"])[:6] if root + "byteorder" in entries else b"little"
    except _BROKEN_ZIP as error:
        found = f"one of {size} bytes that is damaged ({printable(str(error))[:120]})"
        raise _bad(path, "a complete torch zip", found, _AGAIN) from error
    if order != b"little":
        raise _bad(path, "little-endian numbers", "big-endian ones", _SAVE_AGAIN)
    places = {key: _entry_place(path, size, entries, root, storage) for key, storage in pickle.storages.items()}
    checksums = b"".join(struct.pack("<QI", entry.file_size, entry.CRC) for entry in entries.values())
    return TorchContents(pickle, places, data + checksums)


def _root(path: Path, entries: dict[str, zipfile.ZipInfo]) -> str:
    found = [name.removesuffix("data.pkl") for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        cure = "unpack it and use the checkpoint inside" if not found else _SAVE_AGAIN
        raise _bad(path, "a torch checkpoint", f"a zip with {len(found)} data.pkl among {len(entries)} entries", cure)
    root = found[0]
    if root + "constants.pkl" in entries or any(name.startswith(root + "code/") for name in entries):
        raise UnsafeCheckpoint(
            path.name,
            expected="weights",
            found="a TorchScript archive, which is a program",
            cure="use the publisher's weight file instead",
        )
    return root


def _entry_place(path: Path, size: int, entries: dict[str, zipfile.ZipInfo], root: str, storage: StorageRef) -> int:
    entry = entries.get(f"{root}data/{storage.key}")
    if entry is None or entry.file_size < storage.nbytes or entry.header_offset + entry.file_size > size:
        found = "no entry" if entry is None else f"an entry of {entry.file_size} bytes in a file of {size} bytes"
        raise _bad(path, f"{storage.nbytes} bytes for storage {storage.key}", found, _AGAIN)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise _bad(path, "entries stored as torch does", "compressed entries", _SAVE_AGAIN)
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise _bad(path, f"a zip entry for storage {storage.key}", "other bytes at its place", _AGAIN)
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    begin = int(entry.header_offset) + 30 + int(name_length) + int(extra_length)
    if begin + storage.nbytes > size:
        found = f"the file is {size} bytes, its header needs {begin + storage.nbytes}"
        raise _bad(path, "a complete file", found, _AGAIN)
    return begin


def read_legacy(path: Path, size: int) -> TorchContents:
    """Read the pickles of a torch file from before 1.6 and find its storages. Raises BadCheckpoint."""
    with path.open("rb") as file:
        magic = read_inert(file, size, path.name).value
        protocol = read_inert(file, size, path.name).value
        system = read_inert(file, size, path.name).value
        if magic != LEGACY_MAGIC or protocol != 1001 or not isinstance(system, dict):
            raise _bad(path, "a torch file", "a pickle with other marks", _SAVE_AGAIN)
        if system.get("little_endian") is False:
            raise _bad(path, "little-endian numbers", "big-endian ones", _SAVE_AGAIN)
        pickle = read_inert(file, size, path.name)
        keys = read_inert(file, size, path.name).value
        head_end = file.tell()
        places = _legacy_places(path, file, size, pickle, keys)
        file.seek(0)
        fingerprint = file.read(min(head_end, MAX_PICKLE))
    return TorchContents(pickle, places, fingerprint)


def _legacy_places(path: Path, file: Any, size: int, pickle: InertPickle, keys: Any) -> dict[str, int]:
    names = [str(key) for key in keys] if isinstance(keys, (list, tuple)) else []
    if set(names) != set(pickle.storages):
        raise _bad(path, f"{len(pickle.storages)} storages", f"a list of {len(names)} others", _AGAIN)
    places: dict[str, int] = {}
    position = file.tell()
    for name in names:
        storage = pickle.storages[name]
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        position += 8
        if position + storage.nbytes > size:
            found = f"the file is {size} bytes, its header needs {position + storage.nbytes}"
            raise _bad(path, "a complete file", found, _AGAIN)
        if count != storage.count:
            raise _bad(path, f"{storage.count} elements in storage {name}", f"{count}", _AGAIN)
        places[name] = position
        position += storage.nbytes
    return places


def read_tensor(path: Path, places: dict[str, int], reference: TensorRef) -> torch.Tensor:
    """Read one described tensor from its file into memory of its own, contiguous."""
    storage, width = reference.storage, reference.dtype.itemsize
    if 0 in reference.shape:
        return torch.empty(reference.shape, dtype=reference.dtype)
    data = bytearray(reference.extent * width - reference.offset * width)
    with path.open("rb") as file:
        file.seek(places[storage.key] + reference.offset * width)
        if file.readinto(data) != len(data):
            raise _bad(path, f"{len(data)} bytes for a tensor", "the end of the file", _AGAIN)
    flat = torch.frombuffer(data, dtype=reference.dtype)
    return flat.as_strided(reference.shape, reference.stride).clone(memory_format=torch.contiguous_format)


def _bad(path: Path, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(path.name, expected=expected, found=found, cure=cure)
