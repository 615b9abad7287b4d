"""Where trainers read pictures and write models: names that a user gives, kept inside the host's folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..faces.errors import LikenessError
from .file_names import file_stamp, refusal
from .host import folder_paths
from .model_folders import folder_roots, input_folder

# Letters of a name, endings not counted.
LONGEST = 80


class BadPlace(LikenessError):
    """A name that leads out of the folder it belongs into, or onto a file that must not be replaced."""


def training_folder(name: str) -> Path:
    """A folder inside the host's input folder.

    Raises:
        BadPlace: a name that leads out of it.
    """
    root = input_folder().resolve()
    folder = (root / name).resolve() if _can_be_a_path(name) else None
    if folder is None or not name.strip() or root not in (folder, *folder.parents):
        raise BadPlace(
            "folder of pictures",
            expected="the name of a folder inside ComfyUI's input folder",
            found=repr(name[:LONGEST]),
            cure="put the pictures there and give the folder's name, or connect 'images'",
        )
    return folder


def folder_stamp(name: str) -> str:
    """For a node's IS_CHANGED: another one when a file of `training_folder` comes, goes or changes."""
    try:
        folder = training_folder(name)
    except BadPlace:
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    told = [f"{path.relative_to(folder).as_posix()} {file_stamp(path)}" for path in files]
    return hashlib.sha256("\n".join(told).encode("utf-8", "replace")).hexdigest()


def adapter_file(name: str, resume: bool, folder: str = "face_adapters") -> Path:
    """The file that a training writes, in the first existing model folder of that kind (made if there is none).

    Raises:
        BadPlace: not a plain name, or a file that exists while the run does not go on from it.
    """
    stem = _plain_stem(name)
    roots = folder_roots(folder) or [Path(folder_paths().models_dir) / folder]
    path = roots[0] / f"{stem}.safetensors"
    if path.exists() and not resume:
        raise BadPlace(
            path.name, expected="a new name", found="a file of that name", cure="choose another name, or set resume"
        )
    return path


def file_beside(source: Path, name: str) -> Path:
    """A new .safetensors file in the folder of another.

    Raises:
        BadPlace: not a plain name, or a file that exists.
    """
    path = source.with_name(f"{_plain_stem(name)}.safetensors")
    if path.exists():
        raise BadPlace(path.name, expected="a new name", found="a file of that name", cure="choose another name")
    return path


def _plain_stem(name: str) -> str:
    stem = name.strip().removesuffix(".safetensors")
    plain = _can_be_a_path(stem) and not any(sign in stem for sign in '/\\:*?"<>|')
    if not stem or not plain or stem != Path(stem).name or stem.startswith(".") or refusal(stem) is not None:
        found = refusal(stem) or repr(name[:LONGEST])
        raise BadPlace("name of the file", expected="a plain name", found=found, cure="use letters and numbers")
    return stem


def _can_be_a_path(name: str) -> bool:
    """Systems refuse such names with errors of their own."""
    return "\x00" not in name and len(name) <= LONGEST
