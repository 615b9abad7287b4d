"""A safetensors file with other metadata: the header is written anew, the tensors are copied byte by byte.

Layout: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...adapters.checkpoint import CheckpointHeader
from ...adapters.errors import BadCheckpoint
from ...adapters.file_hash import BLOCK, OnBlock, tensors_start
from ...adapters.model_spec import PREFIX, TENSORS_HASH, architecture_of, model_spec
from .architecture import base_of_claims, base_of_tensors
from .hashes import data_sha256

_ALIGNED = 8


def write_with_metadata(
    header: CheckpointHeader, target: Path, changes: Mapping[str, str], on_block: OnBlock | None = None
) -> dict[str, str]:
    """Copy a file under another name with changed metadata; return all of its metadata.

    The hash of the tensors is written anew, so that later changes are seen. ``target`` appears whole or not at all.

    Args:
        header: of the file to copy; it stays as it is.
        target: a file that is not there yet.
        changes: texts by name; an empty one removes the entry.
        on_block: called while the file is read and copied; may raise to stop.

    Raises:
        BadCheckpoint: a file of another container, or a target that is there.
        OSError: the target cannot be written.
    """
    if header.container != "safetensors":
        raise BadCheckpoint(
            header.path.name,
            expected="a .safetensors file, which can hold metadata",
            found="a pickle file",
            cure="convert it with tools/convert_checkpoint.py",
        )
    if target.exists():
        raise BadCheckpoint(target.name, expected="a new name", found="a file of that name", cure="choose another name")
    merged = {**header.metadata, **changes, TENSORS_HASH: data_sha256(header.path, on_block)}
    metadata = {name: text for name, text in merged.items() if text}
    partial = target.with_name(f"{target.name}.part")
    try:
        _copy(header.path, partial, metadata, on_block)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return metadata


def described(header: CheckpointHeader, name: str, entries: Mapping[str, str]) -> dict[str, str]:
    """What ModelSpec wants to be said of a copy.

    Args:
        header: of the file that is copied; what it says of itself stays where ``entries`` are empty.
        name: the title where neither has one.
        entries: ``title``, ``author``, ``license``, ``merged_from``, ``description``.
    """
    said = {key.removeprefix(PREFIX): text for key, text in header.metadata.items() if key.startswith(PREFIX)}
    # A hash that another program wrote of the whole file holds no longer.
    said.pop("hash_sha256", None)
    kind = "lora" if any("lora" in tensor.lower() for tensor in header.tensors) else "model"
    base = base_of_tensors(header) or base_of_claims(header.metadata)
    given = {key: text.strip() for key, text in entries.items() if text.strip()}
    defaults = {"title": name, "architecture": architecture_of(base, kind) if base else kind}
    return {f"{PREFIX}hash_sha256": "", **model_spec(**{**defaults, **said, **given})}


def _copy(source: Path, target: Path, metadata: Mapping[str, str], on_block: OnBlock | None) -> None:
    start = tensors_start(source)
    with source.open("rb") as read, target.open("xb") as write:
        read.seek(8)
        entries = json.loads(read.read(start - 8))
        entries.pop("__metadata__", None)
        text = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNED)
        write.write(len(text).to_bytes(8, "little") + text)
        while block := read.read(BLOCK):
            write.write(block)
            if on_block is not None:
                on_block()
