"""Words of a prompt as the host's tokens: finding a trigger word, removing it, repeating the word before it.

Follows ``encode_prompt_with_trigger_word`` of TencentARC/PhotoMaker (pipeline.py): the token of the trigger is looked
for, so that weights, brackets and line breaks of the host's prompt syntax stay what they are. One difference: where
the repetition pushes the end of the prompt out of its 77 places, the last place keeps the end token, since the host
reads the pooled vector there. Text encoders are causal, so the rows before it are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..faces.errors import LikenessError

Entry = tuple[Any, ...]
Tokens = dict[str, list[list[Entry]]]


class BadPrompt(LikenessError):
    """A prompt without the trigger word, with several, or with no word before it."""


@dataclass(frozen=True)
class TriggeredPrompt:
    """A prompt with its trigger word taken out.

    Attributes:
        plain: the tokens without the trigger.
        repeated: the same with the class word repeated.
        rows: places of the class word in the text conditioning of ``repeated``.
    """

    plain: Tokens
    repeated: Tokens
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Signs:
    """What one tokenizer puts around a prompt."""

    end: Entry
    pad: Entry


def triggered_prompt(clip: Any, text: str, trigger: str, count: int) -> TriggeredPrompt:
    """Tokenize ``text``, take the trigger word out and repeat the word before it ``count`` times.

    Args:
        clip: the host's CLIP value.
        text: a prompt with the trigger word once, after the class word: ``a photo of a man img on a beach``.
        trigger: the trigger word.
        count: rows the identity takes.

    Raises:
        BadPrompt: trigger missing, found twice, first of its 77 places, or too many rows.
    """
    tokens, word, empty = (clip.tokenize(part) for part in (text, trigger, ""))
    plain: Tokens = {}
    repeated: Tokens = {}
    places: set[tuple[int, int]] = set()
    for name, chunks in tokens.items():
        signs = _signs(empty[name][0])
        ids = _word_ids(word[name][0], signs)
        number, place = _find(chunks, ids, text, trigger)
        places.add((number, place))
        plain[name] = _edited(chunks, number, place, len(ids), 1, signs, trigger)
        repeated[name] = _edited(chunks, number, place, len(ids), count, signs, trigger)
    if len(places) != 1:
        raise _bad(text, "text encoders that count the words alike", "different places of the trigger word", trigger)
    number, place = places.pop()
    first = sum(len(chunk) for chunk in next(iter(tokens.values()))[:number]) + place - 1
    return TriggeredPrompt(plain, repeated, tuple(range(first, first + count)))


def encode_tokens(clip: Any, tokens: Mapping[str, Any]) -> tuple[Any, Any]:
    """The host's text conditioning (1, T, C) and pooled vector of tokens."""
    text, pooled = clip.encode_from_tokens(dict(tokens), return_pooled=True)
    return text, pooled


def _signs(empty: Sequence[Entry]) -> _Signs:
    """End and padding, read off the tokens of an empty prompt: start, end, padding."""
    end = empty[1]
    return _Signs(end, empty[2] if len(empty) > 2 else end)


def _word_ids(chunk: Sequence[Entry], signs: _Signs) -> list[Any]:
    ids = [entry[0] for entry in chunk[1:]]
    return ids[: ids.index(signs.end[0])]


def _find(chunks: Sequence[Sequence[Entry]], ids: Sequence[Any], text: str, trigger: str) -> tuple[int, int]:
    """Chunk and place of the only occurrence of ``ids``."""
    found = [
        (number, place)
        for number, chunk in enumerate(chunks)
        for place in range(1, len(chunk) - len(ids) + 1)
        if ids and _same([entry[0] for entry in chunk[place : place + len(ids)]], ids)
    ]
    if len(found) != 1:
        raise _bad(text, "the trigger word exactly once", f"it {len(found)} times", trigger)
    if found[0][1] < 2:
        raise _bad(text, "a class word (man, woman, boy, girl) right before the trigger word", "none", trigger)
    return found[0]


def _same(entries: Sequence[Any], ids: Sequence[Any]) -> bool:
    """Embeddings of textual inversion stand among the numbers as tensors, which equal no number."""
    return all(isinstance(entry, int) and entry == number for entry, number in zip(entries, ids, strict=True))


def _edited(
    chunks: Sequence[Sequence[Entry]], number: int, place: int, length: int, count: int, signs: _Signs, trigger: str
) -> list[list[Entry]]:
    """All chunks, with the trigger of one taken out and the word before it ``count`` times there."""
    chunk = chunks[number]
    size = len(chunk)
    if place - 1 + count > size - 1:
        raise BadPrompt(
            "prompt",
            expected=f"at most {size - place} rows for the identity after the {place - 2} words before it",
            found=f"{count}",
            cure=f"use fewer photos, or move the class word and {trigger} nearer to the beginning",
        )
    edited = [*chunk[: place - 1], *[chunk[place - 1]] * count, *chunk[place + length :]]
    edited += [signs.pad] * (size - len(edited))
    edited = edited[:size]
    if not any(_same([entry[0]], [signs.end[0]]) for entry in edited[1:]):
        edited[-1] = (*signs.end[:2], *chunk[-1][2:])
    return [edited if index == number else list(one) for index, one in enumerate(chunks)]


def _bad(text: str, expected: str, found: str, trigger: str) -> BadPrompt:
    return BadPrompt(
        f"prompt '{text[:60]}'",
        expected=expected,
        found=found,
        cure=f"write it once after the word for the person, as in: a photo of a woman {trigger}",
    )
