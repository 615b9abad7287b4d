"""Which published weight files this ComfyUI has: for the panel that says what is missing and where it belongs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..adapters.model_table import PublishedFile, published_files
from .model_folders import ADAPTERS, AUDIO_ENCODERS, DETECTORS, DIFFUSION, ENCODERS, SWAPPERS, folder_roots

PAGES = {
    "huggingface": "https://huggingface.co/",
    "modelscope": "https://www.modelscope.cn/models/",
    "github": "https://github.com/",
}
KINDS = (ADAPTERS, AUDIO_ENCODERS, DETECTORS, DIFFUSION, ENCODERS, SWAPPERS)


def model_rows() -> list[dict[str, Any]]:
    """Every file of the table with whether it is there: a file of its exact size, or of its name where the size is
    not known, below a folder that the host searches for its kind.

    Keys: id, file, folder, size (bytes or None), exact (whether the size is), licence and commercial (None where not
    stated), used_for, needed_by, source, page (an https address or None), present, found (path below models, or None).
    """
    folders = {row.folder: dict(_files(row.folder)) for row in published_files()}
    return [_row(row, _found(row, folders[row.folder])) for row in published_files()]


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """(path with its folder, size in bytes) of every file where the loaders of this folder look."""
    peers = {peer: None for kind in KINDS if kind.own == folder for peer in kind.peers}
    for name in (folder, *peers):
        for root in folder_roots(name):
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    yield f"{name}/{path.relative_to(root).as_posix()}", path.stat().st_size


def _found(row: PublishedFile, files: dict[str, int]) -> str | None:
    if row.hub == "pypi":
        return _package(row.repo)
    name = Path(row.file).name.lower()
    if name.endswith(".zip"):
        # An archive is used unpacked: the folder of its name, with something in it.
        return next((path for path in files if Path(name).stem in path.lower().split("/")[1:-1]), None)
    named = [path for path, size in files.items() if Path(path).name.lower() == name and _whole(row, size)]
    sized = [path for path, size in files.items() if row.size is not None and size == row.size]
    return next(iter([*named, *sized]), None)


def _whole(row: PublishedFile, size: int) -> bool:
    """Whether a file of that name has the published size; an unfinished download has not."""
    return size == row.size if row.size is not None else size > 0


def _package(name: str) -> str | None:
    try:
        return f"package {name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return None


def _row(row: PublishedFile, found: str | None) -> dict[str, Any]:
    return {
        "id": row.id,
        "file": row.file,
        "folder": "" if row.hub == "pypi" else f"models/{row.folder}",
        "size": row.size if row.size is not None else row.approximate_size,
        "exact": row.size is not None,
        "licence": row.weight_licence,
        "commercial": row.commercial,
        "used_for": row.used_for,
        "needed_by": list(row.needed_by),
        "source": f"{row.hub} {row.repo}" + (f" ({row.revision})" if row.revision else ""),
        "page": f"{PAGES[row.hub]}{row.repo}" if row.hub in PAGES else None,
        "present": found is not None,
        "found": found,
    }
