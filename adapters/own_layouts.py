"""Metadata of the layouts that this project defined itself, where authors published none: read, and refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .checkpoint import CheckpointHeader
from .errors import BadCheckpoint


@dataclass(frozen=True)
class OwnMetadata:
    """The metadata of one file of such a layout.

    Attributes:
        header: the file's.
        cure: what to do where they are wrong; the command that writes good ones.
    """

    header: CheckpointHeader
    cure: str

    def said(self, names: Iterable[str]) -> dict[str, str]:
        """What stands under each name.

        Raises:
            BadCheckpoint: nothing stands under one of them.
        """
        found = {name: self.header.metadata.get(name, "") for name in names}
        missing = [name for name, value in found.items() if not value]
        if missing:
            raise self.refused(f"metadata {', '.join(found)}", f"none for {', '.join(missing)}")
        return found

    def require_trained(self, steps: int) -> None:
        """Refuse a file whose weights are still those the trainer began with. Raises BadCheckpoint."""
        if steps < 1:
            raise self.refused("a trained file", "one of 0 training steps")

    def refused(self, expected: str, found: str) -> BadCheckpoint:
        """The error of this file."""
        return BadCheckpoint(self.header.path.name, expected=expected, found=found, cure=self.cure)
