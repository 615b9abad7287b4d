"""The root of all typed errors, and those that concern pictures and faces."""

from __future__ import annotations


class LikenessError(Exception):
    """A failure told in one sentence: what it concerns, what was expected, what was found, what to do.

    Args:
        what: the thing that failed, as the user knows it (a file, a node, an image number).
        expected: what would have been right.
        found: what was there instead.
        cure: an imperative clause without a full stop.
    """

    def __init__(self, what: str, *, expected: str, found: str, cure: str) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.cure = cure
        # Names out of files may hold line breaks and the like.
        sentence = f"{what}: expected {expected}, found {found}; {cure}."
        super().__init__("".join(letter if letter.isprintable() else _shown(letter) for letter in sentence))


def _shown(letter: str) -> str:
    return " " if letter.isspace() else "?"


class BadImage(LikenessError):
    """A picture that cannot be worked on: empty, wrong number of channels, not finite."""


class BadMask(LikenessError):
    """A mask of zero size, or one that does not fit the picture."""


class BadLandmarks(LikenessError):
    """Points that are not landmarks5: wrong count, wrong order, or eye corners of another convention."""


class NoFaceFound(LikenessError):
    """No face in one or more pictures, under the policy ``on_missing_face = error``."""


class FaceChoice(LikenessError):
    """A selection that names a face that is not there."""
