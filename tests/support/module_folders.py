"""Folders that live as long as a test module: stand-ins of published sizes would fill a disk until the session ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


class ModuleFolders:
    """Makes temporary folders, and removes them all at once."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: list[Path] = []

    def mktemp(self, name: str) -> Path:
        """A new empty folder whose name begins with ``name``."""
        self._made.append(self._factory.mktemp(name))
        return self._made[-1]

    def remove(self) -> None:
        """Remove every folder; a file that is still open (Windows) stays until pytest's own cleaning."""
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleFolders]:
    """Folders for fixtures of module scope."""
    made = ModuleFolders(tmp_path_factory)
    yield made
    made.remove()
