"""Restrictions that licences carry, as short words in a fixed order, and which of them got lost on the way to a child.

A simplification of our own. Licence ids are those of the Hugging Face hub's documentation; the last rows (community
licences) are from memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ORDER = ("NC", "ND", "SA", "COPYLEFT", "USE", "FLOWDOWN", "SIZE", "TERRITORY", "ATTR_CC")
MEANINGS = {
    "NC": "non-commercial only",
    "ND": "no derivatives",
    "SA": "share alike",
    "COPYLEFT": "copyleft",
    "USE": "use restrictions",
    "FLOWDOWN": "terms must be passed on",
    "SIZE": "limits for large companies",
    "TERRITORY": "not in every country",
    "ATTR_CC": "attribution",
}

_ROWS: tuple[tuple[str, str], ...] = (
    (r"mit|apache-2\.0|bsd.*|isc|zlib|unlicense|cc0-1\.0|wtfpl|afl-3\.0|artistic-2\.0|bsl-1\.0", ""),
    (r"cc-by-(2\.0|2\.5|3\.0|4\.0)", "ATTR_CC"),
    (r"cc-by-sa-.*", "SA ATTR_CC"),
    (r"cc-by-nc-sa-.*", "NC SA ATTR_CC"),
    (r"cc-by-nc-nd-.*", "NC ND ATTR_CC"),
    (r"cc-by-nc-.*", "NC ATTR_CC"),
    (r"cc-by-nd-.*", "ND ATTR_CC"),
    (r"a?gpl.*|lgpl.*|mpl-2\.0|eupl.*", "COPYLEFT"),
    (r"openrail(\+\+)?|creativeml-openrail-m|bigscience-.*|bigcode-openrail-m", "USE"),
    (r"gemma", "USE FLOWDOWN"),
    (r"llama[23].*", "USE FLOWDOWN SIZE"),
    (r"flux-1-dev-non-commercial-license", "NC USE FLOWDOWN"),
    (r"stabilityai-ai-community", "USE FLOWDOWN SIZE"),
    (r"tencent-hunyuan-community(-license)?", "USE FLOWDOWN SIZE TERRITORY"),
    (r"deepfloyd-if-license", "NC USE FLOWDOWN"),
    # No ids: the words of publishers, as the table of files repeats them.
    (r"non-commercial(-research)?(-only)?|s-lab-license-1\.0(,-non-commercial)?", "NC"),
    (r"researchrail", "NC USE"),
)
# Words under which the tables of this project and of model files say the same.
_SPELLINGS: tuple[tuple[str, str], ...] = (
    (r"\(.*\)", ""),
    (r"creative commons", "cc"),
    (r"apache[ -]?(license[ -]?)?(version )?2(\.0)?", "apache-2.0"),
    (r"\s+", "-"),
)


def normalised(licence: str | None, name: str | None = None) -> str | None:
    """The licence's id, lower case; ``other`` gives way to ``name``; None where nothing is stated."""
    found = (licence or "").strip().lower()
    if found in ("other", ""):
        found = (name or "").strip().lower()
    if found in ("", "unknown", "other", "none"):
        return None
    for pattern, word in _SPELLINGS:
        found = re.sub(pattern, word, found).strip()
    return found.strip("-") or None


def restrictions(licence: str | None) -> frozenset[str] | None:
    """The restrictions of a licence id as `normalised` gives it, or None where they are not known."""
    for pattern, words in _ROWS:
        if licence is not None and re.fullmatch(pattern, licence):
            return frozenset(words.split())
    return None


def in_order(words: Iterable[str]) -> list[str]:
    """The words in their fixed order."""
    found = set(words)
    return [word for word in ORDER if word in found]


def lost(parents: Iterable[str | None], child: str | None) -> list[str] | None:
    """Restrictions of any parent that the child does not have, in order; None where a licence is not known."""
    of_parents = [restrictions(normalised(one)) for one in parents]
    of_child = restrictions(normalised(child))
    if of_child is None or not of_parents or any(one is None for one in of_parents):
        return None
    return in_order(frozenset().union(*(one for one in of_parents if one is not None)) - of_child)


def strictest(licences: Iterable[str | None]) -> tuple[list[str], list[str]]:
    """The union of all restrictions in order, and the licences whose terms are not known."""
    words: set[str] = set()
    unknown: list[str] = []
    for licence in licences:
        found = restrictions(normalised(licence))
        if found is None:
            unknown.append(licence or "not stated")
        else:
            words |= found
    return in_order(words), unknown


# Licences of the base models that adapters are made for, as their publishers name them.
_BASES = {
    "sd15": "creativeml-openrail-m",
    "sdxl": "openrail++",
    "flux": "flux-1-dev-non-commercial-license",
    "hunyuan_video": "tencent-hunyuan-community",
    "wan": "apache-2.0",
}


def drift_parents(base: str) -> list[str]:
    """Licences of a base model by this project's name for it; none where it is not known."""
    return [_BASES[base]] if base in _BASES else []
