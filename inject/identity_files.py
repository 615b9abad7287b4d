"""Where identity files are kept: ``identities`` in the host's output folder, and in its input folder for those brought
along.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..adapters.errors import MissingModelFile
from .file_names import writing
from .model_folders import input_folder, output_folder

FOLDER = "identities"
INPUT_MARK = "[input] "
# File systems take 255 bytes a name; a number and an ending come on top.
_LONGEST = 200


def list_names() -> list[str]:
    """Names for a dropdown: saved ones first, then those of the input folder behind a mark."""
    saved = sorted(path.name for path in (output_folder() / FOLDER).glob("*.safetensors"))
    brought = sorted(path.name for path in (input_folder() / FOLDER).glob("*.safetensors"))
    return saved + [INPUT_MARK + name for name in brought]


def listed_name(path: Path) -> str:
    """The name under which a saved file is listed."""
    return path.name


def find(name: str) -> Path:
    """The file behind a dropdown entry; a name can never leave the folder.

    Raises:
        MissingModelFile: when there is no such file.
    """
    root = (input_folder() if name.startswith(INPUT_MARK) else output_folder()) / FOLDER
    path = root / Path(name.removeprefix(INPUT_MARK)).name
    if path.suffix == ".safetensors" and path.is_file():
        return path
    raise MissingModelFile(
        "load identity",
        expected=f"the file {path.name!r} in {root.parent.name}/{FOLDER}",
        found="no such file",
        cure="save an identity first, or choose one of the list",
    )


def next_path(name: str) -> Path:
    """A path for a new file that begins with ``name``; characters that some file system refuses become ``_``."""
    stem = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(" .") or "identity"
    stem = stem.encode("utf-8", "replace")[:_LONGEST].decode("utf-8", "ignore")
    root = output_folder() / FOLDER
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    number = 1
    while (root / f"{stem}_{number:05d}.safetensors").exists():
        number += 1
    return root / f"{stem}_{number:05d}.safetensors"
