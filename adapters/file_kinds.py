"""What kind of file this is, by its first bytes, so that a page or a pointer saved as a checkpoint is named as such."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .errors import BadCheckpoint

Container = Literal["safetensors", "torch_zip", "torch_legacy"]

_LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_DOWNLOAD = "download the weight file itself, and compare its size with the publisher's"
_OTHER_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer of a few lines", "run git lfs pull, or " + _DOWNLOAD),
    (b"<", "a web page", _DOWNLOAD),
    (b"GGUF", "a GGUF file", "use the safetensors file of the same model"),
    (b"\x89HDF", "an HDF5 file", "use the publisher's torch or safetensors file"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and use the checkpoint inside"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it and use the checkpoint inside"),
    (b"Rar!", "a RAR archive", "unpack it and use the checkpoint inside"),
    (b"BZh", "a bzip2 archive", "unpack it and use the checkpoint inside"),
    (b"\x08", "what may be an ONNX model", "use the publisher's torch or safetensors file"),
    (b"{", "a JSON text", _DOWNLOAD),
)


def container_of(path: Path) -> tuple[Container, int]:
    """Return how the file is packed and its size in bytes.

    Raises:
        BadCheckpoint: a folder, an empty file, or no checkpoint; says what it looks like instead.
        OSError: the file cannot be opened.
    """
    if path.is_dir():
        raise _no_checkpoint(path, "a folder", "choose a file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not size:
        raise _no_checkpoint(path, "an empty file", _DOWNLOAD)
    if head.startswith(b"PK\x03\x04"):
        return "torch_zip", size
    if head[:1] == b"\x80" and head[2:14] == _LEGACY_MAGIC:
        return "torch_legacy", size
    if size >= 9 and head[8:9] == b"{" and not head[:8].decode("latin1").isprintable():
        return "safetensors", size
    raise _other_kind(path, size, head)


def _other_kind(path: Path, size: int, head: bytes) -> BadCheckpoint:
    if len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5):
        cure = f'convert it without running it: python tools/convert_checkpoint.py "{path.name}"'
        return _no_checkpoint(path, "a plain Python pickle", cure)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, found, cure in _OTHER_KINDS:
        if text.startswith(start):
            return _no_checkpoint(path, found, cure)
    if size < 1024:
        return _no_checkpoint(path, f"{size} bytes of something else", _DOWNLOAD)
    return _no_checkpoint(path, f"{size} bytes that begin with {head[:8].hex()}", _DOWNLOAD)


def _no_checkpoint(path: Path, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(path.name, expected="a safetensors or torch checkpoint", found=found, cure=cure)
