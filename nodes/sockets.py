"""What a graph may hold in the place of one of our objects, told in one sentence before a node runs.

A graph that was written by hand or by a program can put a number where a wire belongs, or leave a wire out; some hosts
pass that on to the node as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from ..faces.errors import LikenessError

OURS = "LIKENESS_"
NO_OBJECTS = (str, int, float, list, dict)
# The host turns what is typed into numbers; what comes over a wire is not looked at by every host.
NUMBERS, NO_NUMBERS = ("INT", "FLOAT"), (str, dict)


class WrongSocket(LikenessError):
    """An input that holds something else than what its socket carries."""


def checked(node: type) -> type:
    """The node class, whose function looks at its sockets first."""
    name: str = node.FUNCTION  # type: ignore[attr-defined]
    function: Callable[..., Any] = getattr(node, name)
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **inputs: Any) -> Any:
        _check_given(node, signature, args, inputs)
        _check_objects(node, inputs)
        return function(*args, **inputs)

    setattr(node, name, call)
    return node


def _check_given(node: type, signature: inspect.Signature, args: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
    try:
        signature.bind(*args, **inputs)
    except TypeError as error:
        raise WrongSocket(
            _title(node), expected="its required inputs and no others", found=str(error), cure="wire the node anew"
        ) from error


def _check_objects(node: type, inputs: Mapping[str, Any]) -> None:
    for name, kind in _kinds(node).items():
        value = inputs.get(name)
        if str(kind).startswith(OURS):
            foreign = isinstance(value, NO_OBJECTS) or type(value).__module__.split(".")[0] == "comfy"
        else:
            foreign = kind in NUMBERS and isinstance(value, NO_NUMBERS)
        if foreign:
            raise WrongSocket(
                _title(node),
                expected=f"{kind} at {name}",
                found=type(value).__name__,
                cure="connect an output of that type",
            )


def _kinds(node: type) -> dict[str, Any]:
    """The type of every input."""
    inputs = node.INPUT_TYPES()  # type: ignore[attr-defined]
    return {name: spec[0] for part in ("required", "optional") for name, spec in inputs.get(part, {}).items()}


def _title(node: type) -> str:
    return str(node.DISPLAY_NAME)  # type: ignore[attr-defined]
