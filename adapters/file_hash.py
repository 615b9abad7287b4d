"""The hash that tells published files apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

BLOCK = 1 << 20
OnBlock = Callable[[], None]


def file_sha256(path: Path, start: int = 0, on_block: OnBlock | None = None) -> str:
    """sha256 of a file in hex, from byte ``start``; ``on_block`` is called after each block and may raise to stop."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(BLOCK):
            digest.update(block)
            if on_block is not None:
                on_block()
    return digest.hexdigest()


def tensors_start(path: Path) -> int:
    """The byte of a safetensors file at which its tensors begin, behind the header's length and the header."""
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
