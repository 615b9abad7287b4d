"""A safetensors file with other metadata: the header is written anew, the tensors are copied byte by byte.

Layout: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ...adapters.checkpoint import CheckpointHeader, read_header
from ...adapters.errors import BadCheckpoint
from ...adapters.file_hash import BLOCK, OnBlock, tensors_start
from ...adapters.model_spec import PREFIX, TENSORS_HASH, architecture_of, model_spec
from .architecture import base_of_claims, base_of_tensors
from .checks import data_hash
from .hashes import data_sha256
from .model_card import plain

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
        BadCheckpoint: a file of another container or one that changes meanwhile, or a target that is there.
        OSError: the target cannot be written.
    """
    _require_safetensors(header)
    if target.exists():
        raise BadCheckpoint(target.name, expected="a new name", found="a file of that name", cure="choose another name")
    tensors = data_sha256(header.path, on_block)
    merged = {**header.metadata, **changes, TENSORS_HASH: tensors}
    # A graph may hold half a letter, which no file can.
    metadata = {name: text.encode("utf-8", "replace").decode() for name, text in merged.items() if text}
    partial = target.with_name(f"{target.name}.part")
    try:
        try:
            copied = _copy(header.path, partial, metadata, on_block)
        except (ValueError, OverflowError) as error:
            raise _changed(header) from error
        if copied != tensors or read_header(partial).tensors != header.tensors:
            raise _changed(header)
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

    Raises:
        BadCheckpoint: a file of another container.
    """
    _require_safetensors(header)
    said = {key.removeprefix(PREFIX): text for key, text in header.metadata.items() if key.startswith(PREFIX)}
    # A hash that another program wrote of the whole file holds no longer.
    said.pop("hash_sha256", None)
    kind = "lora" if any("lora" in tensor.lower() for tensor in header.tensors) else "model"
    base = base_of_tensors(header) or base_of_claims(header.metadata)
    given = {key: text.strip() for key, text in entries.items() if text.strip()}
    defaults = {"title": name, "architecture": architecture_of(base, kind) if base else kind}
    return {f"{PREFIX}hash_sha256": "", **model_spec(**{**defaults, **said, **given})}


def hidden_change(header: CheckpointHeader, metadata: Mapping[str, str]) -> str:
    """A line where the tensors had been changed before they were copied, which the copy's new hash hides; else ""."""
    found = data_hash(header.metadata, metadata[TENSORS_HASH])
    return f"! {plain(header.path.name)}: {found.text}" if found.severity == "warning" else ""


def _require_safetensors(header: CheckpointHeader) -> None:
    if header.container != "safetensors":
        raise BadCheckpoint(
            header.path.name,
            expected="a .safetensors file, which can hold metadata",
            found="a pickle file",
            cure="convert it with tools/convert_checkpoint.py",
        )


def _copy(source: Path, target: Path, metadata: Mapping[str, str], on_block: OnBlock | None) -> str:
    """Write the copy; return the hash of its tensors."""
    start, digest = tensors_start(source), hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        read.seek(8)
        entries = json.loads(read.read(start - 8))
        entries.pop("__metadata__", None)
        text = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNED)
        write.write(len(text).to_bytes(8, "little") + text)
        while block := read.read(BLOCK):
            write.write(block)
            digest.update(block)
            if on_block is not None:
                on_block()
    return digest.hexdigest()


def _changed(header: CheckpointHeader) -> BadCheckpoint:
    return BadCheckpoint(
        header.path.name,
        expected="a file that stays as it is while it is copied",
        found="it changed",
        cure="wait until it is written, and queue it again",
    )
