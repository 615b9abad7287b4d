"""Walking the nested containers of a checkpoint without trusting their size or depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import BadCheckpoint

MAX_LEAVES = 1_000_000
MAX_DEPTH = 64
MAX_NAME = 1000
MAX_CHARACTERS = 200_000_000


def leaves(value: Any, what: str) -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested dicts, lists and tuples with its dotted name.

    Raises:
        BadCheckpoint: more levels or leaves than a checkpoint has (shared containers may nest without end).
    """
    stack: list[tuple[str, Any, int]] = [("", value, 0)]
    visited = characters = 0
    while stack:
        name, node, depth = stack.pop()
        children = _children(node)
        visited += 1
        characters += (len(name) + 1) * len(children or ())
        if depth > MAX_DEPTH or visited > MAX_LEAVES or characters > MAX_CHARACTERS:
            raise BadCheckpoint(
                what,
                expected=f"at most {MAX_DEPTH} levels and {MAX_LEAVES} entries",
                found="more, or a container that contains itself",
                cure="do not use this file unless you know who made it",
            )
        if children is None:
            yield name, node
        else:
            stack.extend((f"{name}.{key}" if name else key, child, depth + 1) for key, child in reversed(children))


def printable(text: str) -> str:
    """Return ``text`` cut to a sensible length and without what a message or a log could not show."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_NAME])


def _children(node: Any) -> list[tuple[str, Any]] | None:
    if isinstance(node, dict):
        return [(printable(key if isinstance(key, str) else str(key)), child) for key, child in node.items()]
    if isinstance(node, (list, tuple)):
        return [(str(number), child) for number, child in enumerate(node)]
    return None
