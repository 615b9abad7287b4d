"""What the scripts of the canvas say: the same texts in every language, and no text outside of the tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from likeness_pack.adapters.model_table import published_files
from pack import ROOT

WEB = ROOT / "web"
TABLES = ("texts.js", "model_texts.js")
SCRIPTS = sorted(path for path in WEB.glob("*.js") if path.name not in TABLES)
CHINESE = re.compile("[\u4e00-\u9fff]")
# Words of the browser and of the interface, which has translations of its own, and the project's name.
NOT_OURS = {"noopener noreferrer", "pi pi-database", "Escape", "Extensions", "Likeness"}
# Licences whose names are the same in every language.
NAMES = {"Apache-2.0", "MIT", "CC0-1.0", "CreativeML OpenRAIL-M", "ResearchRAIL (facefusion)"}


def table(file: str, name: str) -> dict[str, dict[str, str]]:
    """A table of a script; it must be JSON."""
    found = re.search(
        rf"^export const {name} = (\{{.*?^\}});", (WEB / file).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found, f"{file} has no table {name}"
    return dict(json.loads(found[1], object_pairs_hook=_once))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert sorted(set(names)) == sorted(names), "a text is there twice"
    return dict(pairs)


TEXTS = table("texts.js", "TEXTS")


def test_the_languages_are_those_of_the_nodes() -> None:
    assert set(TEXTS) == {path.name for path in (ROOT / "locales").iterdir() if path.is_dir()}


def test_every_language_says_everything_with_the_same_values() -> None:
    for language, texts in TEXTS.items():
        assert list(texts) == list(TEXTS["en"]), language
        for key, text in texts.items():
            assert text.strip(), (language, key)
            named, expected = (sorted(re.findall(r"\{(\w+)\}", one)) for one in (text, TEXTS["en"][key]))
            assert named == expected, (language, key)
    assert [key for key, text in TEXTS["zh"].items() if not CHINESE.search(text)] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_nothing_outside_of_the_tables(script: Path) -> None:
    assert set(sentences(script.read_text(encoding="utf-8"))) - NOT_OURS == set()


def sentences(code: str) -> list[str]:
    """The texts of a script that are words for people: two words, or one that begins with a capital."""
    code = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    code = re.sub(r"^\s*//.*$|^import .*$", "", code, flags=re.MULTILINE)
    texts = [text for pair in re.findall(r"\"([^\"\n]*)\"|`([^`\n]*)`", code) for text in pair]
    shown = [re.sub(r"\$\{[^}]*\}", "", text) for text in texts]
    return [text for text in shown if re.search(r"[A-Za-z]{2,},? [a-z]{2,}|^[A-Z][a-z]+$", text)]


def test_a_text_outside_of_the_tables_is_seen() -> None:
    code = '// "a comment with words"\nmake("p", "a-b", "Keep all faces");\nmake("i", "", `${count} of them all`);'
    assert sentences(code) == ["Keep all faces", " of them all"]
    assert sentences('button("All", label);') == ["All"]


def test_every_text_is_used_and_every_used_one_is_there() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    used = set(re.findall(r"say\((?:[^()]*\? )?\"([\w.]+)\"", code)) | set(re.findall(r": \"(panel\.[\w.]+)\"", code))
    columns = re.search(r"COLUMNS = \[(.*?)\]", code)
    assert columns
    used |= {f"panel.{name}" for name in re.findall(r'"(\w+)"', columns[1])}
    assert used == set(TEXTS["en"])


def test_what_is_published_is_said_in_chinese_too() -> None:
    told = {row.used_for for row in published_files()}
    told |= {row.weight_licence for row in published_files() if row.weight_licence} - NAMES
    chinese = table("model_texts.js", "PUBLISHED")["zh"]
    assert sorted(told ^ chinese.keys()) == [], "web/model_texts.js follows adapters/models.json"
    assert [text for text in chinese.values() if not CHINESE.search(text)] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_command_has_the_name_of_its_panel(language: str) -> None:
    """The interface's lists of commands and keys take it from this file."""
    commands = json.loads((ROOT / "locales" / language / "commands.json").read_text(encoding="utf-8"))
    assert commands == {"Likeness_ModelFiles": {"label": TEXTS[language]["panel.label"]}}
