"""Replacements of one block of a DiT on top of each other: each of ours keeps the one it found, and calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from .shared import Shared

T = TypeVar("T", bound=Shared)
BlockFunction = Callable[..., dict[str, Any]]


def holds(found: Any, kind: type[Shared]) -> bool:
    """Whether a replacement is of a kind, or calls one of it."""
    return isinstance(found, kind) or (isinstance(found, Shared) and holds(getattr(found, "previous", None), kind))


def with_changed(found: Any, kind: type[T], change: Callable[[T], Any]) -> Any:
    """The same replacements with another one, or None, in the place of the first one of a kind.

    What stands beneath the replacement of another pack cannot be seen, and stays.
    """
    if isinstance(found, kind):
        return change(found)
    if not holds(found, kind):
        return found
    return dataclasses.replace(found, previous=with_changed(found.previous, kind, change))


def called(
    previous: BlockFunction | None, args: dict[str, Any], block: Mapping[str, Any], **kwargs: Any
) -> tuple[dict[str, Any], Tensor | None]:
    """Call a block, through the replacement that was found there.

    Returns:
        The result, and the picture tokens as the block itself left them; None where the replacement leaves it out.
    """
    if previous is None:
        out: dict[str, Any] = block["original_block"](args)
        return out, out["img"]
    own: list[Tensor] = []

    def original(inner: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = block["original_block"](inner)
        own.append(found["img"])
        return found

    out = previous(args, {**block, "original_block": original}, **kwargs)
    return out, own[-1] if own else None
