"""README, help pages and translations say what the nodes, the table of files and the golden parts are."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pack import ROOT, register
from workflow_files import workflows

register()
sys.path.append(str(ROOT / "tools" / "dev"))

import parity_table  # noqa: E402
import readme_tables  # noqa: E402
from node_schema import Node, live_nodes  # noqa: E402

import locales  # noqa: E402

NODES = live_nodes()
PAGES = ROOT / "web" / "docs"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "THIRD_PARTY.md", *(ROOT / "docs").glob("*.md"), *PAGES.glob("*.md")])
CHINESE = re.compile("[\u4e00-\u9fff]")
# The interface's message format gives these signs a meaning.
MESSAGE_SIGNS = re.compile(r"[@{}|$]")


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def shown_default(value: Any) -> str:
    return "-" if value is None else "empty" if value == "" else f"`{value}`"


@pytest.mark.parametrize("name", readme_tables.DOCUMENTS)
def test_generated_tables_are_current(name: str) -> None:
    text = readme_tables.DOCUMENTS[name].read_text(encoding="utf-8")
    assert readme_tables.with_table(text, name) == text, "run python tools/dev/readme_tables.py"


def test_the_readme_is_for_a_newcomer() -> None:
    """It leads to every document and every workflow, and holds no long table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 260
    assert [path.name for path in sorted((ROOT / "docs").glob("*.md")) if f"(docs/{path.name}" not in text] == []
    assert [path.stem for path in sorted((ROOT / "workflows").glob("*.json")) if f"`{path.stem}`" not in text] == []


def test_the_table_of_parity_is_made_of_results_of_every_part() -> None:
    results = parity_table.read_results()
    assert (ROOT / "docs" / "parity.md").read_text(encoding="utf-8") == parity_table.document(results), (
        "run python tools/dev/parity_table.py"
    )
    parts = readme_tables.golden_parts()
    passed = {name for found in results.values() for name, result in found.items() if result["status"] == "passed"}
    assert set(parts) - passed == set()
    assert not [name for found in results.values() for name, result in found.items() if result["status"] == "FAILED"]


def test_other_measures_belong_to_live_parts() -> None:
    from harness import load_parts

    assert set(readme_tables.OTHER_MEASURES) <= set(load_parts())


def test_tolerances_are_read_from_the_parts() -> None:
    from harness import load_parts

    parts = load_parts()
    assert readme_tables.tolerance("fact_resampler", parts["fact_resampler"]) == "1e-5"
    assert readme_tables.tolerance("fact_retinaface", parts["fact_retinaface"]) == "1e-5, 1e-4"
    assert readme_tables.tolerance("fact_unet_tiny", parts["fact_unet_tiny"]) == "3e-4"


def test_every_node_has_its_help_page_and_no_other() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {node.id for node in NODES}


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.id)
def test_help_pages_list_inputs_defaults_and_outputs(node: Node) -> None:
    text = (PAGES / f"{node.id}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {node.title}\n")
    inputs = [(row[0], row[1]) for row in table_rows(section(text, "Inputs"))]
    assert inputs == [(f"`{item.name}`", shown_default(item.default)) for item in node.inputs]
    assert [row[0] for row in table_rows(section(text, "Outputs"))] == [f"`{item.name}`" for item in node.outputs]


def test_the_english_texts_are_those_of_the_nodes() -> None:
    found = (ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")
    assert found == locales.as_json(locales.english()), "run python tools/dev/locales.py"


def test_the_chinese_texts_cover_exactly_the_live_nodes() -> None:
    english, chinese = dict(locales.leaves(locales.english())), dict(locales.leaves(locales.read("zh")))
    assert sorted(chinese.keys() ^ english.keys()) == []
    assert [path for path, text in chinese.items() if not CHINESE.search(text)] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_hold_no_sign_that_the_interface_would_interpret(language: str) -> None:
    assert [path for path, text in locales.leaves(locales.read(language)) if MESSAGE_SIGNS.search(text)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not target.startswith("#") and not _exists(document, target)]
    assert missing == []
    anchors = {_anchor(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    assert [target for target in targets if target.startswith("#") and target[1:] not in anchors] == []


def _exists(document: Path, target: str) -> bool:
    return (document.parent / target.partition("#")[0]).exists()


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_socket_of_ours_is_in_the_glossary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    sockets = {
        item.type for node in NODES for item in (*node.inputs, *node.outputs) if item.type.startswith("LIKENESS")
    }
    assert sockets
    assert {name for name in sockets if f"`{name}`" not in glossary} == set()


def test_every_requirement_of_users_is_credited() -> None:
    credits = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").lower()
    lines = [
        line.split("#")[0]
        for name in ("requirements.txt", "requirements-extras.txt", "requirements-dev.txt", "requirements-host.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    ]
    names = {match[0] for line in lines if (match := re.match(r"[A-Za-z0-9._-]+", line))}
    assert {name for name in names if name.lower().replace("_", "-") not in credits.replace("_", "-")} == set()


def test_every_family_is_credited() -> None:
    from likeness_pack.adapters import registry

    credits = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")
    repositories = {
        (family.id, match[0])
        for family in registry.families()
        for link in family.links
        if (match := re.match(r"https://github\.com/[\w.-]+/[\w.-]+", link))
    }
    assert repositories
    assert {(name, link) for name, link in repositories if link not in credits} == set()


def test_every_workflow_is_described() -> None:
    text = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    headings = " ".join(re.findall(r"^## (.+)$", text, re.MULTILINE))
    names = set(workflows())
    assert names
    assert {name for name in names if name not in headings.replace(",", " ").split()} == set()


def test_commands_named_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        scripts = set(re.findall(r"\b(?:tools|tests)[/\\][\w/\\.-]+\.py", text))
        assert [name for name in scripts if not (ROOT / name.replace("\\", "/")).exists()] == [], document.name
        targets = set(re.findall(r"`make ([a-z-]+)", text))
        assert [name for name in targets if f"\n{name}:" not in makefile] == [], document.name
