"""Hashes of model files, read in blocks: of the whole file, of the tensors alone, and the old short one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...adapters.file_hash import OnBlock, file_sha256, tensors_start

_LEGACY_START, _LEGACY_SIZE = 0x100000, 0x10000


def header_length(path: Path) -> int:
    """Bytes of JSON before the tensors of a safetensors file."""
    return tensors_start(path) - 8


def data_sha256(path: Path, on_block: OnBlock | None = None) -> str:
    """sha256 of the tensors of a safetensors file, which metadata does not change."""
    return file_sha256(path, tensors_start(path), on_block)


def legacy_hash(path: Path) -> str:
    """The first eight digits of the hash of a window of the file, as early interfaces named checkpoints."""
    with path.open("rb") as file:
        file.seek(_LEGACY_START)
        return hashlib.sha256(file.read(_LEGACY_SIZE)).hexdigest()[:8]
