"""Files that say what made them, in the host's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapters.provenance import NAME, BadManifest, Manifest, from_dict, in_prompt
from .clips import graph_metadata
from .file_names import file_stamp
from .model_folders import input_folder
from .provenance import graph_manifest


def manifest_and_texts(
    prompt: Any, extra: Mapping[str, Any] | None, identities: Sequence[str]
) -> tuple[Manifest, dict[str, str]]:
    """The manifest of a graph with the identities used, and all texts to write into a file."""
    given = (extra or {}).get(NAME) or in_prompt(prompt)
    manifest = graph_manifest(prompt) if given is None else from_dict(given, "this graph")
    manifest = manifest.with_identities(identities)
    return manifest, graph_metadata(prompt, extra) | {NAME: json.dumps(manifest.as_dict())}


def list_input_files(endings: Sequence[str]) -> list[str]:
    """Names for a dropdown: files of the input folder with such endings."""
    folder = input_folder()
    if not folder.is_dir():
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in endings)


def input_stamp(name: str) -> str:
    """Changes when a file of the input folder does."""
    path = input_folder() / name
    return file_stamp(path) if path.is_file() else ""


def input_file(name: str) -> Path:
    """A file of the input folder.

    Raises:
        BadManifest: none of that name there.
    """
    folder = input_folder().resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise BadManifest(
            name, expected="a file of the input folder", found="none of that name there", cure=f"put it into {folder}"
        )
    return path
