"""Where the files of W+ edit directions are kept: ``w_directions`` in every folder of face adapters."""

from __future__ import annotations

from pathlib import Path

from ..adapters.errors import MissingModelFile
from .model_folders import folder_roots

FOLDER = "w_directions"
SUFFIXES = frozenset({".npy", ".pt"})


def list_directions() -> list[str]:
    """Names for a dropdown, with ``/`` between folders on every system."""
    return sorted({name for root in _roots() for name in _names(root)})


def find_direction(name: str) -> Path:
    """The file behind a dropdown entry; a name can never leave the folder.

    Raises:
        MissingModelFile: when there is no such file.
    """
    for root in _roots():
        if name in _names(root):
            return root / name
    listed = list_directions()
    raise MissingModelFile(
        "edit direction",
        expected=f"the file {name!r} in models/face_adapters/{FOLDER}",
        found=f"{len(listed)} other files" if listed else "no direction file there",
        cure="copy the folder w_direction of the W+ adapter's repository there and refresh the page",
    )


def _roots() -> list[Path]:
    return [root / FOLDER for root in folder_roots("face_adapters") if (root / FOLDER).is_dir()]


def _names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
