"""An identity as one safetensors file: features as tensors, everything else as text in the header; never a pickle."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from .errors import BadCheckpoint
from .identity import IMAGE_TOKENS_ZERO, Identity

FORMAT = "likeness identity"
FORMAT_VERSION = 1


def save_identity(identity: Identity, path: Path) -> None:
    """Write an identity; a file that is there is replaced as a whole, or left alone if writing fails.

    Raises:
        OSError: the folder cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "encoder": identity.encoder,
        "photos": json.dumps(list(identity.photos)),
        "masked": json.dumps(identity.masked),
        "notes": json.dumps(list(identity.notes), ensure_ascii=False),
        "digest": identity.digest,
    }
    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in identity.features.items()}
    _write_whole(path, safetensors.torch.save(tensors, metadata))


def load_identity(path: Path) -> Identity:
    """Read an identity that `save_identity` wrote.

    Raises:
        BadCheckpoint: no such file, another kind of file, a newer format, or content that does not fit its digest
            or itself.
    """
    if not path.is_file():
        raise _bad(path, "a file", "none there", "check the name")
    content = path.read_bytes()
    metadata = _metadata(path, content)
    if metadata.get("format") != FORMAT:
        raise _bad(path, "an identity file", "a safetensors file of another kind", "choose a file that Likeness saved")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise _bad(path, f"format version {FORMAT_VERSION}", str(metadata.get("format_version")), "update Likeness")
    try:
        identity = _identity(metadata, safetensors.torch.load(content))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _bad(path, "an identity file", f"one that is damaged ({error})", "save the identity again") from error
    if identity.digest != metadata.get("digest"):
        raise _bad(path, "content that fits its digest", "changed or damaged content", "save the identity again")
    told = (tensor for name, tensor in identity.features.items() if name != IMAGE_TOKENS_ZERO)
    rows = {int(tensor.shape[0]) if tensor.ndim > 1 else 0 for tensor in told}
    if len(rows) != 1 or 0 in rows:
        raise _bad(path, "a row for each face in every feature", identity.shapes, "choose a file that Likeness saved")
    return identity


def _identity(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Identity:
    return Identity(
        encoder=metadata["encoder"],
        features={name: tensor.clone() for name, tensor in tensors.items()},
        photos=tuple(str(photo) for photo in json.loads(metadata["photos"])),
        masked=bool(json.loads(metadata["masked"])),
        notes=tuple(str(note) for note in json.loads(metadata["notes"])),
    )


def _metadata(path: Path, content: bytes) -> dict[str, str]:
    """The text entries of a safetensors header: eight bytes of length, then JSON."""
    damaged = "a file that is not safetensors, or cut off"
    if len(content) < 8:
        raise _bad(path, "an identity file", damaged, "choose a file that Likeness saved")
    (length,) = struct.unpack("<Q", content[:8])
    if length > len(content) - 8:
        raise _bad(path, "an identity file", damaged, "choose a file that Likeness saved")
    try:
        header = json.loads(content[8 : 8 + length].decode("utf-8"))
    except ValueError as error:
        raise _bad(path, "an identity file", damaged, "choose a file that Likeness saved") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _bad(path: Path, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(path.name, expected=expected, found=found, cure=cure)
