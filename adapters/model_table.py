"""The table of published weight files (``models.json``): one source for messages, help pages and downloads."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from .errors import MissingModelFile
from .file_hash import file_sha256

TABLE = Path(__file__).with_name("models.json")


@dataclass(frozen=True)
class PublishedFile:
    """One published file; None means that the fact is not known.

    Attributes:
        id: unique in the table.
        file: its name in the hub's repository, with folders.
        hub: ``"huggingface"``, ``"modelscope"``, ``"github"``, ``"google_drive"`` or ``"pypi"``.
        repo: repository id, or package name, or page.
        revision: revision to fetch.
        revision_verified: whether that revision was seen; False for an assumed ``main``.
        size: exact size in bytes.
        approximate_size: size in bytes where only a rounded number is known.
        sha256: checksum in hex.
        code_licence: licence of the authors' code.
        weight_licence: licence of the weights.
        commercial: whether the weights may be used commercially.
        folder: model folder it belongs into.
        family: id of the family that reads it, or None.
        variant: variant of that family, or None.
        needed_by: ids of the families or backends that need it; ``family:variant`` where only that variant does.
        used_for: what it does, for people.
        note: anything else.
    """

    id: str
    file: str
    hub: str
    repo: str
    revision: str | None
    revision_verified: bool
    size: int | None
    approximate_size: int | None
    sha256: str | None
    code_licence: str | None
    weight_licence: str | None
    commercial: bool | None
    folder: str
    family: str | None
    variant: str | None
    needed_by: tuple[str, ...]
    used_for: str
    note: str

    def is_needed_by(self, family: str, variant: str | None) -> bool:
        """Whether a file of that family and variant needs this one beside it."""
        return self.family != family and bool({family, f"{family}:{variant}"} & {*self.needed_by})

    @property
    def size_text(self) -> str:
        """The size as people read it."""
        if self.size is not None:
            return f"{self.size} bytes"
        return "size unknown" if self.approximate_size is None else f"about {self.approximate_size / 1e6:.0f} MB"


@lru_cache(maxsize=1)
def published_files() -> tuple[PublishedFile, ...]:
    """All files of the table, in its order. Raises KeyError or TypeError where the table breaks its schema."""
    entries = json.loads(TABLE.read_text(encoding="utf-8"))["files"]
    names = {item.name for item in fields(PublishedFile)}
    rows = []
    for entry in entries:
        if set(entry) != names:
            raise KeyError(f"{entry.get('id')}: {sorted(set(entry) ^ names)}")
        rows.append(PublishedFile(**(entry | {"needed_by": tuple(entry["needed_by"])})))
    return tuple(rows)


def published_file(file_id: str) -> PublishedFile:
    """The file of that id. Raises KeyError if the table has none."""
    for row in published_files():
        if row.id == file_id:
            return row
    raise KeyError(file_id)


def published_as(name: str, folders: Collection[str]) -> PublishedFile | None:
    """The published file that a name means, or None: the one of that file name, by its folders where several have it,
    else one whose repository is called so.

    Args:
        name: as a graph writes it, with or without folders.
        folders: model folders that the file may belong into.
    """
    rows = [row for row in published_files() if row.folder in folders]
    wanted = _parts(name)
    best = max(rows, key=lambda row: _common(_parts(row.file), wanted), default=None)
    if best is not None and _common(_parts(best.file), wanted):
        return best
    stem = wanted[0].rpartition(".")[0]
    return next((row for row in rows if stem and stem == _parts(row.repo)[0]), None)


def _parts(name: str) -> list[str]:
    """The file's name, then its folders from within."""
    return name.replace("\\", "/").lower().split("/")[::-1]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def find_by_size_or_hash(size: int | None = None, sha256: str | None = None) -> tuple[PublishedFile, ...]:
    """Files of exactly that sha256, else of exactly that size; empty if none."""
    rows = published_files()
    by_hash = tuple(row for row in rows if sha256 is not None and row.sha256 == sha256.lower())
    return by_hash or tuple(row for row in rows if size is not None and row.size == size)


def published_variant(path: Path, size: int, family: str) -> str | None:
    """Variant of the published file that ``path`` is, by exact size or sha256; None if it is none or several."""
    rows = [row for row in published_files() if row.family == family and row.variant is not None]
    of_size = {row.variant for row in rows if row.size == size}
    if len(of_size) == 1:
        return of_size.pop()
    hashes = {row.sha256: row.variant for row in rows if row.sha256 is not None and row.size in (None, size)}
    return hashes.get(file_sha256(path)) if hashes else None


def missing_file_error(file_id: str, found: str = "no such file") -> MissingModelFile:
    """The refusal of a node whose weight file is not there: file, source, size, licence and folder in one sentence."""
    row = published_file(file_id)
    revision = f" at revision {row.revision}" if row.revision else ""
    licence = row.weight_licence or "weight licence not stated by the publisher"
    return MissingModelFile(
        row.used_for,
        expected=f"the file {row.file} ({row.size_text}; {licence}) in models/{row.folder}",
        found=found,
        cure=f"get it from {row.hub} {row.repo}{revision} and put it there under any name or sub-folder",
    )
