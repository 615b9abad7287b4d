"""The header of a safetensors file, checked by hand: https://github.com/huggingface/safetensors, section "Format".

Eight bytes of little-endian length, that many bytes of JSON ``{name: {dtype, shape, data_offsets}}``, then the data.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .errors import BadCheckpoint
from .nested import printable
from .tensor_info import MAX_UNBACKED, RawHeader, TensorInfo, unbacked_size

MAX_HEADER = 100_000_000
_AGAIN = "download the file again and compare its size with the publisher's"
_TYPE_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
DTYPES: dict[str, torch.dtype] = {
    code: getattr(torch, name) for code, name in _TYPE_NAMES.items() if hasattr(torch, name)
}


def read_safetensors_header(path: Path, size: int) -> RawHeader:
    """Read and check the header of ``path``, a file of ``size`` bytes. No tensor is allocated.

    Raises:
        BadCheckpoint: the length, the JSON, a dtype, a shape or an offset is not what the format allows.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise _bad(path, f"a header of at most {MAX_HEADER} bytes", f"one that claims {length} bytes", _AGAIN)
        if 8 + length > size:
            raise _bad(path, "a complete file", f"the file is {size} bytes, its header needs {8 + length}", _AGAIN)
        text = file.read(length)
    entries = _parse(path, text)
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    spans, tensors = [], {}
    for name, entry in entries.items():
        tensors[name], begin, end = _entry(path, name, entry)
        spans.append((begin, end, name))
    _check_spans(path, sorted(spans), size, 8 + length)
    return RawHeader(tensors=tensors, metadata=metadata, fingerprint=text)


def _bad(path: Path, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(path.name, expected=expected, found=found, cure=cure)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _bad(path, "every name once in the header", f"{printable(twice)[:80]} more than once", _AGAIN)
        return names

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        found = "one nested too deeply" if isinstance(error, RecursionError) else f"a broken one ({str(error)[:80]})"
        raise _bad(path, "a JSON header", found, _AGAIN) from error
    if not isinstance(entries, dict):
        raise _bad(path, "a JSON object as header", f"a JSON {type(entries).__name__}", _AGAIN)
    return entries


def _metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "metadata of texts", "other values in __metadata__", "write the file again with safetensors")
    return metadata


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _told(value: Any) -> str:
    """Show a wrong value only where it is short; anything may stand in a hostile header."""
    parts = value if isinstance(value, list) else [value]
    if len(parts) <= 8 and all(type(part) is int and part.bit_length() <= 64 for part in parts):
        return str(value)
    return f"a {type(value).__name__}"


def _entry(path: Path, raw_name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    name = printable(raw_name)[:120]
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"dtype, shape and data_offsets for {name}", _told(entry), _AGAIN)
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > 64 or not all(map(_is_count, shape)):
        raise _bad(path, f"a shape of whole numbers for {name}", _told(shape), _AGAIN)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise _bad(path, f"two offsets for {name}", _told(offsets), _AGAIN)
    kind = entry["dtype"] if isinstance(entry["dtype"], str) else _told(entry["dtype"])
    dtype = DTYPES.get(kind)
    if dtype is None:
        known = "one of " + " ".join(DTYPES)
        raise _bad(path, f"{known} for {name}", f"dtype {printable(kind)[:20]}", "use a file of an ordinary dtype")
    info = TensorInfo(tuple(shape), dtype)
    if offsets[1] - offsets[0] != info.nbytes:
        found = f"data_offsets that span {offsets[1] - offsets[0]} bytes"
        raise _bad(path, f"{info.nbytes} bytes for {name} of shape {_told(shape)}", found, _AGAIN)
    if unbacked_size(info.shape, info.count) is not None:
        raise _bad(path, f"at most {MAX_UNBACKED} in a size of the empty tensor {name}", _told(shape), _AGAIN)
    return info, offsets[0], offsets[1]


def _check_spans(path: Path, spans: list[tuple[int, int, str]], size: int, start: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            found = f"{'an overlap' if begin < position else 'a gap'} before {printable(name)[:120]}"
            raise _bad(path, "tensors that lie end to end", found, _AGAIN)
        position = end
    if start + position != size:
        found = f"the file is {size} bytes, its header needs {start + position}"
        raise _bad(path, "a complete file", found, _AGAIN)
