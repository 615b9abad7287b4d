"""PyAV, imported when a clip is first touched, and its failures told in one sentence."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import BadClip, ClipPackageMissing

OLDEST = "14.2"


def pyav() -> Any:
    """The module ``av``.

    Raises:
        ClipPackageMissing: it is not installed or does not load.
    """
    try:
        return importlib.import_module("av")
    except ImportError as cause:
        raise ClipPackageMissing(
            "clips",
            expected=f"the package av (PyAV) {OLDEST} or newer",
            found=str(cause),
            cure=f'run "{sys.executable}" -m pip install "av>={OLDEST}" and restart ComfyUI',
        ) from cause


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What PyAV and the disk raise when a file cannot be read or written, and ``more``."""
    return (pyav().error.FFmpegError, OSError, *more)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """PyAV's input container of a file.

    Raises:
        BadClip: no file, or nothing that PyAV reads.
    """
    if not path.is_file():
        raise BadClip(
            path.name,
            expected="a clip",
            found="no such file",
            cure=f"put it into {path.parent} or choose another",
        )
    try:
        container = pyav().open(str(path), metadata_errors="ignore")
    except failures() as cause:
        raise BadClip(
            path.name,
            expected="a clip that PyAV can read",
            found=f"{path.stat().st_size} bytes it cannot ({reason(cause)})",
            cure="copy or download the file again; a recording that was cut off lacks its index",
        ) from cause
    try:
        yield container
    finally:
        container.close()


def reason(cause: BaseException) -> str:
    """PyAV's words without file names and numbers around them."""
    return str(getattr(cause, "strerror", None) or cause).strip() or type(cause).__name__


def codec_name(stream: Any) -> str:
    """Name of a stream's codec, not of the decoder that happens to read it; ``"unknown"`` where there is none."""
    context = getattr(stream, "codec_context", None)
    codec = getattr(context, "codec", None)
    return str(getattr(codec, "canonical_name", None) or getattr(codec, "name", None) or "unknown")
