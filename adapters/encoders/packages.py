"""Encoders that come with an optional package instead of a checkpoint: their names, how to load them, what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UnknownCheckpoint
from .base import FaceEncoder

DLIB = "dlib_resnet"
ARCFACE = "arcface_"
PACKS = ("buffalo_l", "antelopev2")


def names() -> list[str]:
    """Ids of the package encoders.

    All are always listed in one order, so that a graph from another machine is valid here; loading one whose package
    or file is missing says what to install or where to put it.
    """
    return [DLIB, *(ARCFACE + pack for pack in PACKS)]


def is_package(name: str) -> bool:
    """Whether ``name`` is one of `names` rather than a file."""
    return name in names()


def load(name: str, roots: Sequence[Path]) -> FaceEncoder:
    """Build a package encoder.

    Raises:
        MissingPackage: its package is not installed.
        MissingModelFile: the insightface pack is in none of ``roots``.
        BadCheckpoint: a file that cannot be read.
        UnknownCheckpoint: no such encoder.
    """
    if name == DLIB:
        from .dlib_resnet.encoder import load_dlib_resnet

        return load_dlib_resnet()
    if not is_package(name):
        raise UnknownCheckpoint(
            f"face encoder {name}", expected=" or ".join(names()), found="another name", cure="choose one of the list"
        )
    from .arcface_insightface.encoder import find_pack, load_arcface

    return load_arcface(find_pack(name.removeprefix(ARCFACE), roots))


def load_named(name: str, roots: Sequence[Path], find: Callable[[str], Path] = Path) -> FaceEncoder:
    """Build the encoder of a package, or of the file that ``find`` gives for any other name.

    Raises the errors of `load`, of the registry and of ``find``.
    """
    if is_package(name):
        return load(name, roots)
    from .. import registry

    built: FaceEncoder = registry.load(find(name), kind="encoder")
    return built


def describe(encoder: FaceEncoder) -> str:
    """What a loaded encoder is, one fact per line; for every encoder, from a package or from a file."""
    licence = encoder.licence
    facts = [
        f"encoder: {encoder.title} ({encoder.id})",
        *licence.lines(),
        f"head masks: {'used' if encoder.uses_masks else 'not used'}",
    ]
    return "\n".join([*facts, *(f"note: {note}" for note in (licence.note, *encoder.notes) if note)])
