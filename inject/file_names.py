"""Names that a user gives to files of ours, whether a file changed, and one sentence where it cannot be written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..faces.errors import LikenessError

# File systems take 255 bytes a name; a number, an ending and a partial file's mark come on top.
_LONGEST = 200
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})


class BadFileName(LikenessError):
    """A name that leads out of the output folder, or that some file system refuses."""


class NotWritten(LikenessError):
    """A file that could not be written: a full disk, a folder that may not be written to."""


def checked_prefix(prefix: str) -> str:
    """Return the beginning of a file name below the output folder.

    Raises:
        BadFileName: absolute, with ``..``, control characters, names of devices, or a part of over 200 bytes.
    """
    reason = refusal(prefix)
    if reason is None:
        return prefix
    raise BadFileName(
        "file name",
        expected="a name below the output folder",
        found=reason,
        cure="write a plain name such as likeness/picture",
    )


def refusal(prefix: str) -> str | None:
    """What is wrong with a name below a folder, or None."""
    parts = re.split(r"[/\\]", prefix)
    if PurePosixPath(prefix).is_absolute() or PureWindowsPath(prefix).anchor:
        return "an absolute path"
    if ".." in parts:
        return "one with .. in it"
    if any(not letter.isprintable() for letter in prefix):
        return "characters that cannot be shown"
    if any(part.split(".")[0].strip().upper() in _DEVICES for part in parts):
        return "the name of a device"
    if any(len(part.encode("utf-8", "replace")) > _LONGEST for part in parts):
        return f"a name of over {_LONGEST} bytes"
    return None


def file_stamp(path: Path) -> str:
    """For a node's IS_CHANGED: another one when the file changes."""
    facts = path.stat()
    return f"{facts.st_mtime_ns} {facts.st_size}"


@contextmanager
def writing(path: Path, *, is_new: bool = False) -> Iterator[None]:
    """While ``path`` is written: a failure of the system becomes one sentence, and no half of a new file stays.

    Raises:
        NotWritten: the disk is full, or the folder may not be written to.
    """
    try:
        yield
    except OSError as error:
        if is_new:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise NotWritten(
            path.name,
            expected=f"room and permission to write in {path.parent}",
            found=(error.strerror or type(error).__name__).lower(),
            cure="free some space or choose another output folder, and queue it again",
        ) from error
