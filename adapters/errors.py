"""Typed errors about files, models and identities. Each says what was expected, what was found and what to do."""

from __future__ import annotations

from ..faces.errors import LikenessError


class BadCheckpoint(LikenessError):
    """A file that cannot be read: empty, truncated, not a checkpoint, shapes that lie."""


class UnsafeCheckpoint(LikenessError):
    """A pickle that asks for more than tensors; it was refused without being run."""


class UnknownCheckpoint(LikenessError):
    """No family recognises the file; carries every family's reason."""

    def __init__(
        self, what: str, *, expected: str, found: str, cure: str, reasons: dict[str, str] | None = None
    ) -> None:
        super().__init__(what, expected=expected, found=found, cure=cure)
        self.reasons = reasons or {}


class AmbiguousCheckpoint(LikenessError):
    """Several families or variants fit the tensors; names the candidates and the option to set."""

    def __init__(self, what: str, *, expected: str, found: str, cure: str, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(what, expected=expected, found=found, cure=cure)
        self.candidates = candidates


class KeyMismatch(LikenessError):
    """Leftover or missing keys in a file of a known family."""


class BaseModelMismatch(LikenessError):
    """An adapter meant for another base model."""


class EncoderMismatch(LikenessError):
    """An identity made by an encoder whose features this adapter does not take."""


class IdentityMismatch(LikenessError):
    """Identities that cannot be combined or compared."""


class MissingModelFile(LikenessError):
    """A weight file that is not there; names file, source, size, licence and folder."""


class MissingPackage(LikenessError):
    """An optional package that is not installed; carries the pip line with the running interpreter's path."""


class PatchIncomplete(LikenessError):
    """Fewer layers ran their patch than the checkpoint has."""


class HostTooOld(LikenessError):
    """The running ComfyUI lacks what this node needs."""
