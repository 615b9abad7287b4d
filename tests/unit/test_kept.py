"""What was made of an input is made once, goes with the input, and is never given for other contents."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from likeness_pack.inject.kept import FOR_EACH, Kept, itself


class Value:
    """Something that can be referred to weakly."""


class Source:
    """What a value is made of; equal to all others, so that only objects tell them apart."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_made_once_while_the_input_is_in_use_and_gone_with_it() -> None:
    kept, source, made = Kept(), torch.zeros(2, 3), []

    def make() -> Value:
        made.append(1)
        return Value()

    first = weakref.ref(kept.get(("a",), make, of=source))
    assert kept.get(("a",), make, of=source) is first()
    assert kept.get(("b",), make, of=source) is not first()
    assert len(made) == 2
    del source
    assert first() is None
    kept.get(("a",), make, of=torch.zeros(2, 3))
    assert len(made) == 3


def test_who_still_holds_a_value_shares_it_with_another_input() -> None:
    """Two loads of one photo are two objects with equal contents: neither is projected twice."""
    kept, one, other = Kept(), Source(), Source()
    value = kept.get(("a",), Value, of=one)
    assert kept.get(("a",), Value, of=other) is value
    alive = weakref.ref(value)
    del value, one
    assert alive() is not None, "the other input holds it"
    del other
    assert alive() is None


def test_choices_that_were_given_up_do_not_pile_up() -> None:
    kept, source = Kept(), torch.ones(4)
    values: list[Any] = [weakref.ref(kept.get((number,), Value, of=source)) for number in range(20)]
    assert [value() is not None for value in values] == [False] * (20 - FOR_EACH) + [True] * FOR_EACH


def test_an_object_in_a_key_is_only_itself() -> None:
    """Also where objects call themselves equal; what cannot be referred to weakly is never found again."""
    one, other = Source(), Source()
    table = {itself(one): 1, itself((1,)): 2, itself(Source()): 3}
    assert table.get(itself(one)) == 1
    assert [table.get(itself(value)) for value in (other, (1,), Source())] == [None] * 3
