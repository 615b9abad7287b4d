"""Typed errors about clips, pictures and audio in files."""

from __future__ import annotations

from ..faces.errors import LikenessError


class BadClip(LikenessError):
    """A file that is no clip, is cut off or damaged, or changes its picture size on the way."""


class BadAudio(LikenessError):
    """A file without sound, or a waveform that cannot be worked on."""


class BadPicture(LikenessError):
    """A file that is no picture."""


class ClipNotWritten(LikenessError):
    """A clip that could not be written: no such encoder, a container that refuses a stream, no room on the disk."""


class ClipPackageMissing(LikenessError):
    """PyAV is not installed; carries the pip line with the running interpreter's path."""
