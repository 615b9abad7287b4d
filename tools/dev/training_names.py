"""Writes the tables of ``docs/training_config.md``: ``python tools/dev/training_names.py [--check]``.

They list what `training.run_config` takes: names, kinds and defaults come from the dataclasses that are filled,
meanings from the attributes in their docstrings. Each table stands between ``<!-- table: NAME -->`` and
``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

sys.path[:0] = [entry for entry in [str(Path(__file__).parent)] if entry not in sys.path]

from node_schema import ROOT  # noqa: E402 (the path is set above)
from readme_tables import markdown  # noqa: E402

DOCUMENT = ROOT / "docs" / "training_config.md"
KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
RAMP = "[start, end] or [start, end, part of the run]"
OWN_KIND = {"resampler": "sizes by name"}


def tables() -> dict[str, tuple[Any, ...]]:
    """The dataclasses of each table; the first that has a name speaks for it."""
    from likeness_pack.training.fact.models import ResamplerShape
    from likeness_pack.training.fact.options import AdapterOptions
    from likeness_pack.training.recogniser.task import RecipeOptions
    from likeness_pack.training.run_config import AdapterExtra, Common, RecogniserExtra

    return {
        "every task": (Common,),
        "adapters": (AdapterExtra, AdapterOptions),
        "resampler": (ResamplerShape,),
        "recognisers": (RecogniserExtra, RecipeOptions),
    }


def rows(classes: Sequence[Any], known: Sequence[str] = ()) -> list[tuple[str, str, str, str]]:
    """Names, kinds, defaults and meaning of each entry of the docstrings; what ``known`` lists is left out."""
    found, listed = [], set(known)
    for one in classes:
        hints, own = get_type_hints(one), {field.name: field for field in fields(one)}
        told = entries(one)
        missing = own.keys() - {name for names, _ in told for name in names}
        if missing:
            raise SystemExit(f"the docstring of {one.__name__} says nothing of {', '.join(sorted(missing))}")
        for names, text in told:
            new = [name for name in names if name not in listed]
            listed |= set(new)
            if new:
                kinds = dict.fromkeys(kind(name, hints[name]) for name in new)
                defaults = [default(own[name]) for name in new]
                found.append((", ".join(f"`{name}`" for name in new), "; ".join(kinds), ", ".join(defaults), text))
    return found


def entries(one: Any) -> list[tuple[list[str], str]]:
    """What a docstring says of the attributes: names that share an entry, and its text."""
    part = (inspect.getdoc(one) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {6,}.*)*)", part, re.MULTILINE)
    return [(names.split(", "), " ".join(text.split()).replace("``", "`")) for names, text in found]


def kind(name: str, hint: Any) -> str:
    """What may stand in a file for a type."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(hint))
    return OWN_KIND.get(name) or (RAMP if is_dataclass(hint) else KINDS[hint])


def default(field: Field[Any]) -> str:
    """A field's default as a file would say it."""
    if field.default is MISSING and field.default_factory is MISSING:
        return "must be given"
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None or value == "":
        return "empty"
    parts = [getattr(value, one.name) for one in fields(value)] if is_dataclass(value) else value
    return f"`{json.dumps(parts)}`"


def with_tables(text: str) -> str:
    """The text with every table made anew.

    Raises:
        SystemExit: where a table's place is missing.
    """
    common: list[str] = []
    for name, classes in tables().items():
        table = markdown(("name", "what it takes", "default", "meaning"), rows(classes, common))
        common = common or [field.name for field in fields(classes[0])]
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = place.subn(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", text)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"{DOCUMENT.name} has {count} places for the table {name}, expected one")
    return text


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or with --check only say whether they are current."""
    old = DOCUMENT.read_text(encoding="utf-8")
    new = with_tables(old)
    if "--check" not in arguments:
        DOCUMENT.write_text(new, encoding="utf-8", newline="\n")
        return 0
    if new != old:
        print(f"{DOCUMENT.name} is not current: run python tools/dev/training_names.py")
    return int(new != old)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
