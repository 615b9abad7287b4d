"""What was made of an input, for as long as that input is in use.

A host forgets a MODEL before its node runs again, and keeps the node's inputs: an identity, a picture, a sound. What
was projected or encoded of them is held by them, so that another strength finds it; it goes when they go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch.utils.weak import WeakIdKeyDictionary, WeakIdRef

from .memo import Memo
from .shared import Shared

Made = TypeVar("Made")
# One input serves two MODELs of different dtypes; more would only be choices that were given up.
FOR_EACH = 2


def itself(value: object) -> object:
    """A part of a key that stands for this very object, a VAE or a model; it does not keep it."""
    try:
        return WeakIdRef(value)
    except TypeError:
        # What cannot be referred to weakly is no one's a second time.
        return object()


class Kept(Shared):
    """Values by what they are and what they were made of. The latter are told apart as objects, not by their contents:
    keys must name the contents too, since pictures can be changed in place.
    """

    def __init__(self) -> None:
        self._alive: weakref.WeakValueDictionary[tuple[object, ...], Any] = weakref.WeakValueDictionary()
        self._held: Any = WeakIdKeyDictionary()

    def get(self, key: tuple[object, ...], make: Callable[[], Made], of: object) -> Made:
        """What ``make`` gives, made once under ``key`` for as long as some MODEL holds it or ``of`` is in use.

        Args:
            key: everything the value depends on.
            make: makes a value that can be referred to weakly, and that does not hold ``of``.
            of: the input it is made of.
        """
        found: Made | None = self._alive.get(key)
        value = make() if found is None else found
        self._alive[key] = value
        held: Memo[Made] = self._held.setdefault(of, Memo(limit=FOR_EACH))
        return held.get(key, lambda: value)
