"""Detectors that come with a package instead of a checkpoint: their names, how to load them, what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UnknownCheckpoint

MTCNN = "mtcnn"
SCRFD = "insightface_"
PACKS = ("buffalo_l", "antelopev2")


def names() -> list[str]:
    """Ids of the package detectors, the default first; all are always listed, so that a graph from another machine is
    valid here.
    """
    return [MTCNN, *(SCRFD + pack for pack in PACKS)]


def is_package(name: str) -> bool:
    """Whether ``name`` is one of `names` rather than a file."""
    return name in names()


def load(name: str, roots: Sequence[Path]) -> Any:
    """Build a package detector.

    Args:
        name: one of `names`.
        roots: folders that may hold insightface packs.

    Raises:
        MissingPackage: its package is not installed.
        MissingModelFile: the insightface pack is in none of ``roots``.
        BadCheckpoint: a file that cannot be read.
        UnknownCheckpoint: no such detector.
    """
    if name == MTCNN:
        from .mtcnn.detector import MtcnnDetector
        from .mtcnn.weights import load_mtcnn

        return MtcnnDetector(load_mtcnn())
    if not is_package(name):
        raise UnknownCheckpoint(
            f"face detector {name}", expected=" or ".join(names()), found="another name", cure="choose one of the list"
        )
    from .insightface.detector import load_insightface_detector

    return load_insightface_detector(roots, name.removeprefix(SCRFD))


def load_named(name: str, roots: Sequence[Path], find: Callable[[str], Path] = Path) -> Any:
    """Build the detector of a package, or of the file that ``find`` gives for any other name.

    Raises the errors of `load`, of the registry and of ``find``.
    """
    if is_package(name):
        return load(name, roots)
    from .. import registry

    return registry.load(find(name), kind="detector")


def describe(detector: Any) -> str:
    """What a loaded detector is, one fact per line; for every detector, from a package or from a file."""
    licence = detector.licence
    facts = [
        f"detector: {getattr(detector, 'title', detector.name)}",
        f"least score: {detector.default_score:g}",
        *licence.lines(),
    ]
    return "\n".join([*facts, *(f"note: {note}" for note in (licence.note, *getattr(detector, "notes", ())) if note)])
