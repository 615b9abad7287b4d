"""The items of a farm: what is to be done, under which name by content, and what is done already."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import WrongUsage
from .titles import Setting, Workflow, parse_setting, prepare

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
CLIPS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
RECORD = ".record.json"


@dataclass(frozen=True)
class Item:
    """One run of the workflow: a name for the report, the workflow with its inputs set, and the files it needs."""

    name: str
    key: str
    workflow: Workflow
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Unusable:
    """An item that cannot even be queued, with its sentence."""

    name: str
    error: str


def read_items(source: Path, workflow: Workflow, fixed: Sequence[Setting], place: str = "") -> list[Item | Unusable]:
    """The items of a folder (each picture or clip is one) or of a JSONL file (each line is one).

    Args:
        fixed: settings that all items share.
        place: with a folder, the input that takes the file: ``Title.input``.

    Raises:
        WrongUsage: there is nothing to do, or what is given does not fit the workflow at all.
    """
    prepare(workflow, fixed)
    if source.is_dir():
        lines = _of_folder(source, place)
    elif source.is_file():
        lines = _of_jsonl(source)
    else:
        raise WrongUsage(f"{source} is neither a folder nor a JSONL file.")
    if not lines:
        raise WrongUsage(f"{source} holds nothing to do: no picture, clip or line.")
    folder = source if source.is_dir() else source.parent
    return [_item(name, settings, workflow, fixed, folder) for name, settings in lines]


def _of_folder(folder: Path, place: str) -> list[tuple[str, Mapping[str, Any] | str]]:
    if not place:
        raise WrongUsage("a folder needs --input Title.input: which input takes each file.")
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in PICTURES | CLIPS)
    return [(file.name, {place: f"@{file.name}"}) for file in files]


def _of_jsonl(file: Path) -> list[tuple[str, Mapping[str, Any] | str]]:
    """Lines ``{"name": ..., "set": {"Title.input": value}}``; an unreadable line becomes its sentence."""
    try:
        texts = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise WrongUsage(f"{file} cannot be read as text: {error}.") from error
    return [_line(number, text) for number, text in enumerate(texts, 1) if text.strip()]


def _line(number: int, text: str) -> tuple[str, Mapping[str, Any] | str]:
    name = f"line {number}"
    try:
        entry = json.loads(text)
    except ValueError as error:
        return name, f"{name} is no JSON: {error}."
    if not isinstance(entry, dict) or not isinstance(entry.get("set"), dict) or set(entry) - {"name", "set"}:
        return name, f'{name} is not of the form {{"name": ..., "set": {{"Title.input": value}}}}.'
    return str(entry.get("name", name)), entry["set"]


def _item(
    name: str, given: Mapping[str, Any] | str, workflow: Workflow, fixed: Sequence[Setting], folder: Path
) -> Item | Unusable:
    if isinstance(given, str):
        return Unusable(name, given)
    try:
        own = [_setting(place, value) for place, value in given.items()]
        # The shared settings are relative to where the command runs, an item's own to where the item lies.
        shared = prepare(workflow, fixed)
        made = prepare(shared.workflow, own, folder)
    except WrongUsage as error:
        return Unusable(name, str(error))
    return Item(name, content_key(made.workflow), made.workflow, {**shared.files, **made.files})


def _setting(place: str, value: Any) -> Setting:
    if not isinstance(value, str | int | float | bool):
        raise WrongUsage(f"{place} takes a text, a number or true or false, not {json.dumps(value)}.")
    parsed = parse_setting(f"{place}=")
    return Setting(parsed.node, parsed.name, value)


def content_key(workflow: Workflow) -> str:
    """Name of a run by its content: nodes and inputs, not titles; files stand in it by their own content."""
    bare = {node: {"class_type": entry["class_type"], "inputs": entry["inputs"]} for node, entry in workflow.items()}
    text = json.dumps(bare, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def write_outputs(folder: Path, item: Item, outputs: Sequence[Mapping[str, Any]], texts: Sequence[Any]) -> list[str]:
    """Write the outputs of an item under names by content, its record last; returns the names of the files."""
    written: list[dict[str, Any]] = []
    for place, output in enumerate(outputs):
        title = re.sub(r"[^0-9A-Za-z]+", "_", str(output["title"])).strip("_").lower() or "output"
        suffix = re.sub(r"[^0-9A-Za-z.]", "", str(output["suffix"]))
        name = f"{item.key}-{place}-{title}{suffix}"
        _write_whole(folder / name, output["content"])
        written.append(
            {"file": name, "bytes": len(output["content"]), "node": output["node"], "title": output["title"]}
        )
    record = {"key": item.key, "files": written, "texts": list(texts)}
    _write_whole(folder / f"{item.key}{RECORD}", json.dumps(record, ensure_ascii=False, indent=1).encode())
    return [entry["file"] for entry in written]


def finished(folder: Path, key: str) -> list[str] | None:
    """The files of an item that an earlier run finished, or None where the record or any file is missing or cut."""
    try:
        record = json.loads((folder / f"{key}{RECORD}").read_text(encoding="utf-8"))
        files = {str(entry["file"]): int(entry["bytes"]) for entry in record["files"]}
        whole = all((folder / Path(name).name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return list(files) if whole else None


def _write_whole(path: Path, content: bytes) -> None:
    """All or nothing: a file under its final name is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
