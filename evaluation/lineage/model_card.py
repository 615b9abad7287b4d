"""A model card as the Hugging Face hub writes it: YAML between two lines of dashes, then text. Untrusted text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...faces.errors import LikenessError
from .licences import normalised

_DASHES = "---"
_INFORMATIVE = 500
_LARGEST = 1 << 20


class BadModelCard(LikenessError):
    """A model card that cannot be read."""


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        licence: normalised id, or None.
        base_models: the models it says it comes from.
        relation: finetune, adapter, merge or quantized; "" where it says nothing.
        carbon: grams of CO2 equivalent as the card writes them, or "".
        informative: whether there is some text that says more than a template.
        notes: sentences about what was read.
    """

    licence: str | None = None
    base_models: tuple[str, ...] = ()
    relation: str = ""
    carbon: str = ""
    informative: bool = False
    notes: tuple[str, ...] = field(default=())


def read_card(text: str) -> ModelCard:
    """Read a card.

    Raises:
        BadModelCard: front matter that is no YAML mapping, or a text of more than a megabyte.
    """
    if len(text) > _LARGEST:
        raise _bad(f"{len(text)} characters", "use the card of the model, at most a megabyte")
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != _DASHES:
        return ModelCard(informative=_tells(text))
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == _DASHES), None)
    if end is None:
        raise _bad("no second line of three dashes", "close the front matter with a line of three dashes")
    fields = _fields("\n".join(lines[1:end]))
    licence, notes = _first(fields.get("license"))
    bases = fields.get("base_model")
    return ModelCard(
        licence=normalised(licence, _first(fields.get("license_name"))[0]),
        base_models=tuple(filter(None, map(_word, bases if isinstance(bases, list) else [bases]))),
        relation=_word(fields.get("base_model_relation")),
        carbon=_carbon(fields.get("co2_eq_emissions")),
        informative=_tells("\n".join(lines[end + 1 :])),
        notes=notes,
    )


def card_beside(path: Path) -> str:
    """The text of ``<stem>.md`` or ``README.md`` in the folder of a model file, or "" where there is none."""
    for candidate in (path.with_suffix(".md"), path.with_name("README.md")):
        if candidate.is_file() and candidate.stat().st_size <= _LARGEST:
            return candidate.read_text(encoding="utf-8", errors="replace")
    return ""


def plain(text: str, limit: int = 200) -> str:
    """Untrusted text for showing: one line, no control characters, at most ``limit`` characters."""
    kept = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in text)
    return " ".join(kept.split())[:limit]


def _fields(text: str) -> Mapping[str, Any]:
    import yaml

    try:
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # The reader lets errors of its conversions through, such as that of `!!int ''`.
        raise _bad("something else", "mend the lines between the dashes") from error
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise _bad(f"a {type(fields).__name__}", "write `name: value` lines between the dashes")
    return fields


def _first(value: Any) -> tuple[str | None, tuple[str, ...]]:
    if isinstance(value, list) and value:
        return _word(value[0]) or None, (f"the card names {len(value)} licences; the first counts",)
    return _word(value) or None, ()


def _carbon(value: Any) -> str:
    if isinstance(value, dict):
        grams, source = _word(value.get("emissions")), _word(value.get("source"))
        return f"{grams} g{f' ({source})' if source else ''}" if grams else ""
    grams = _word(value)
    return f"{grams} g" if grams else ""


def _word(value: Any) -> str:
    """A value as text; "" for a list or a mapping, which a few lines of YAML can make too long for any memory."""
    return "" if value is None or isinstance(value, dict | list | set | tuple) else plain(str(value))


def _tells(body: str) -> bool:
    return len(body.strip()) >= _INFORMATIVE


def _bad(found: str, cure: str) -> BadModelCard:
    return BadModelCard("model card", expected="front matter in YAML between lines of dashes", found=found, cure=cure)
