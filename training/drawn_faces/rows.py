"""Tensors of B faces that are cut into rows together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Kind = TypeVar("Kind", bound="Rows")
# Tensors of some faces by their shape without the faces, those of one shape in order.
Cut = Mapping[torch.Size, Iterator[Tensor]]


@dataclass(frozen=True, eq=False)
class Rows:
    """A data class of tensors, whose first axis is the face, of other such classes, and of what holds for all faces."""

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, in order."""
        for one in vars(self).values():
            if isinstance(one, Tensor):
                yield one
            elif isinstance(one, Rows):
                yield from one.tensors()

    def filled(self: Kind, cut: Cut) -> Kind:
        """The same with the next tensors of a cut."""
        return type(self)(*(_filled(one, cut) for one in vars(self).values()))


def _filled(value: object, cut: Cut) -> object:
    if isinstance(value, Tensor):
        return next(cut[value.shape[1:]])
    return value.filled(cut) if isinstance(value, Rows) else value


class Stack:
    """The tensors of many `Rows` of the same faces, all of one shape in one, so that they are cut with few calls."""

    def __init__(self, members: Sequence[Rows]) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for member in members:
            for tensor in member.tensors():
                shapes.setdefault(tensor.shape[1:], []).append(tensor)
        self._tensors = {shape: torch.stack(several) for shape, several in shapes.items()}

    def cut(self, chosen: slice) -> Cut:
        """Some of the faces; the members must be filled in the order in which they were given."""
        return {shape: iter(several[:, chosen].unbind(0)) for shape, several in self._tensors.items()}
