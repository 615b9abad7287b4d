"""Base of everything that is put into a MODEL's options: copied MODELs share it, whatever the host's clone does."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T", bound="Shared")


class Shared:
    """A frozen value that a deep copy returns as it is, so that no clone ever copies weights or caches."""

    def __copy__(self: T) -> T:
        return self

    def __deepcopy__(self: T, memo: dict[int, Any]) -> T:
        return self
