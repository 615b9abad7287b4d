"""Workflows in API form, and their inputs set by the titles of nodes."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import WrongUsage

Workflow = dict[str, dict[str, Any]]
UPLOAD = "@"
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Setting:
    """One input to change: the node's title or number, the input's name, the new value (text, or as JSON gave it)."""

    node: str
    name: str
    value: Any


@dataclass
class Prepared:
    """A workflow with its inputs set, and the local files that it needs: name in the input folder -> path here."""

    workflow: Workflow
    files: dict[str, Path] = field(default_factory=dict)


def load_workflow(path: Path) -> Workflow:
    """Read a workflow in API form.

    Raises:
        WrongUsage: the file is missing, no JSON, or in the form of the canvas.
    """
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise WrongUsage(f"{path} is no JSON: {error}.") from error
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        raise WrongUsage(f"{path} is a graph of the canvas: take one from workflows/api, or save it as 'Export (API)'.")
    if not isinstance(workflow, dict) or not workflow or not all(map(_is_node, workflow.values())):
        raise WrongUsage(f"{path} is no workflow in API form: every entry needs class_type and inputs.")
    return workflow


def _is_node(entry: Any) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("class_type"), str) and isinstance(entry.get("inputs"), dict)
    )


def title_of(workflow: Mapping[str, Any], node: str) -> str:
    """The title of a node, or its class where it has none; the number itself for a node that is not there."""
    entry = workflow.get(node) or {}
    return str((entry.get("_meta") or {}).get("title") or entry.get("class_type") or node)


def parse_setting(text: str) -> Setting:
    """Read ``Title.input=value``; the title may hold dots, the value anything.

    Raises:
        WrongUsage: the text has another form.
    """
    place, equals, value = text.partition("=")
    node, dot, name = place.rpartition(".")
    if not (equals and dot and node.strip() and name.strip()):
        raise WrongUsage(f"'{text}' is not of the form Title.input=value.")
    return Setting(node.strip(), name.strip(), value)


def find_node(workflow: Mapping[str, Any], wanted: str) -> str:
    """The number of the node with a title or number; a title goes before a number.

    Raises:
        WrongUsage: no node, or several, are called that.
    """
    titles = {node: title_of(workflow, node) for node in workflow}
    found = [node for node, title in titles.items() if title == wanted]
    if len(found) > 1:
        raise WrongUsage(f"'{wanted}' is the title of nodes {', '.join(found)}: give a node's number instead.")
    if found:
        return found[0]
    if wanted in workflow:
        return wanted
    near = difflib.get_close_matches(wanted, titles.values(), n=1) or sorted(set(titles.values()))
    raise WrongUsage(f"the workflow has no node '{wanted}': it has {', '.join(repr(title) for title in near)}.")


def prepare(workflow: Workflow, settings: Iterable[Setting], folder: Path = Path()) -> Prepared:
    """Set inputs in a copy of the workflow.

    A value ``@file`` names a local file (relative to ``folder``) to send to the server; in the workflow stands a name
    made of the file's content. ``@@`` begins a text that starts with @.

    Raises:
        WrongUsage: a node, an input or a file is not there, or a value is of the wrong kind.
    """
    made = Prepared(copy.deepcopy(workflow))
    for setting in settings:
        node = find_node(made.workflow, setting.node)
        inputs = made.workflow[node]["inputs"]
        if setting.name not in inputs:
            there = ", ".join(inputs) or "none"
            raise WrongUsage(f"node '{setting.node}' has no input '{setting.name}': it has {there}.")
        inputs[setting.name] = _value(setting, inputs[setting.name], folder, made.files)
    return made


def _value(setting: Setting, before: Any, folder: Path, files: dict[str, Path]) -> Any:
    value = setting.value
    if not isinstance(value, str):
        return value
    if value.startswith(UPLOAD * 2):
        return value[1:]
    if value.startswith(UPLOAD):
        path = (folder / value[1:]).expanduser()
        name = content_name(path)
        files[name] = path
        return name
    return _as_kind(value, before, f"{setting.node}.{setting.name}")


def _as_kind(text: str, before: Any, place: str) -> Any:
    """The text as the kind of value that stands there now; a link is replaced by whatever JSON reads, else by text."""
    if isinstance(before, str):
        return text
    if isinstance(before, bool):
        if text.lower() in WORDS:
            return WORDS[text.lower()]
        raise WrongUsage(f"{place} takes true or false, not '{text}'.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    # A whole number in the file may stand for a decimal one, and the server knows which: any number is let through.
    if isinstance(before, int | float) and not _is_number(value):
        raise WrongUsage(f"{place} takes a number, not '{text}'.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def content_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        WrongUsage: it cannot be read.
    """
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def content_name(path: Path) -> str:
    """Name of a file in the server's input folder: the same content has the same name, whatever it is called here."""
    return f"likeness-{content_hash(path)[:24]}{path.suffix.lower()}"
