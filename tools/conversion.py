"""What the converting commands share: never over another file unasked, and never half a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from likeness_pack.adapters.errors import BadCheckpoint
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

T = TypeVar("T")


def require_free(target: Path, force: bool) -> None:
    """Refuse a target that is there, unless the user said --force. Raises BadCheckpoint."""
    if target.exists() and not force:
        raise BadCheckpoint(
            target.name, expected="no such file yet", found="one", cure="choose another name or give --force"
        )


def default_target(source: Path, ending: str = ".safetensors") -> Path:
    """A source's path with another ending. Raises BadCheckpoint for ``.`` and its like."""
    if not source.name:
        raise BadCheckpoint(str(source), expected="a file", found="a folder", cure="give the file's name")
    return source.with_name(source.stem + ending)


def write_checked(
    tensors: Mapping[str, Tensor], target: Path, metadata: Mapping[str, str], check: Callable[[Path], T]
) -> T:
    """Write a safetensors file beside the target, and put it there once ``check`` has read it as users will.

    Args:
        tensors: contiguous tensors by name.
        target: the file; replaced if it is there.
        metadata: texts of the file; ``format`` is added.
        check: is given the written file before it has its name; its errors leave the target as it was.

    Returns:
        What ``check`` returned.

    Raises:
        BadCheckpoint: the file cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        _save(tensors, partial, metadata)
        checked = check(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return checked


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    try:
        save_file(dict(tensors), path, metadata={"format": "pt", **metadata})
    except SafetensorError as error:
        raise BadCheckpoint(
            path.name.removesuffix(".partial"),
            expected=f"a folder {path.parent} with room that may be written to",
            found=str(error)[:160],
            cure="make the folder, free some space or choose another one",
        ) from error
