"""Writes the generated tables of the documents: ``python tools/dev/readme_tables.py [--check]``.

Weight files come from ``adapters/models.json``, families from the registry, nodes from the live classes; those of the
golden parts stand in a document that is generated as a whole (``parity_table.py``). Each table stands between
``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [entry for entry in [str(Path(__file__).parent)] if entry not in sys.path]

from node_schema import ROOT, live_nodes  # noqa: E402 (the path is set above)

MODELS_NOT_READ = "not read by this version"
COMMERCIAL = {True: "yes", False: "**no**", None: "not stated"}
LINKS = {
    "huggingface": "https://huggingface.co/{}",
    "modelscope": "https://modelscope.cn/models/{}",
    "google_drive": "https://drive.google.com/file/d/{}",
    "github": "https://github.com/{}",
}
# Parts that measure pictures in levels or pixels instead of calling Golden.check with a tolerance.
OTHER_MEASURES = {
    "fact_align": "matrix 2e-5; picture 0.05 levels on average, 4 at most",
    "faceswap_matrices": "a thousandth of a pixel at each landmark",
    "faceswap_warps": "1e-5; pictures 2 levels at 99.5 % of the samples",
    "faceswap_inswapper_official": "1e-5; pictures 2 levels at 99.5 % of the samples",
    "faceswap_color": "1e-5; pictures 2 levels at 99.5 % of the samples, 5 after four truncations",
    "faceswap_masks": "1e-5, 2e-5; areas 0.1 at 99 % of the pixels",
    "faceswap_paste_facefusion": "2 levels at 99.5 % of the pixels",
    "faceswap_restore_paste": "2 levels at 99.5 % of the pixels",
    "provenance_fixture": "exact",
    "faceswap_reactor": "matrix 0.05 pixels of 512; mask 0.1 at most, 0.003 on average",
}
DEFAULT_TOLERANCE = 1e-5


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; ``|`` inside a cell is escaped and line breaks become spaces."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def model_table() -> str:
    """Every published file: name, use, source, size, licence, folder."""
    from likeness_pack.adapters.model_table import published_files

    header = ("file", "what it is", "from", "size", "licence of the weights", "commercial use", "put it into")
    return markdown(header, [_model_row(row) for row in published_files()])


def _model_row(row: Any) -> tuple[str, ...]:
    if row.hub in LINKS:
        where = f"[{row.hub.replace('_', ' ')}]({LINKS[row.hub].format(row.repo)})"
        revision = f" at `{row.revision}`" if row.revision_verified and row.revision else ""
        source, folder = where + revision, f"`models/{row.folder}`"
    else:
        source, folder = f"package {row.repo} {row.revision or ''}", "comes with the package"
    if MODELS_NOT_READ in row.note:
        folder = MODELS_NOT_READ
    licence = row.weight_licence or "not stated"
    return f"`{row.file}`", row.used_for, source, row.size_text, licence, COMMERCIAL[row.commercial], folder


def family_table() -> str:
    """Every family that files are recognised as: kind, name with a link, variants, licences."""
    from likeness_pack.adapters import registry

    header = ("read as", "system", "how it works", "licence of the code", "licence of the weights", "commercial use")
    return markdown(header, [_family_row(family) for family in registry.families()])


def _family_row(family: Any) -> tuple[str, ...]:
    variants = f" ({', '.join(family.variants)})" if family.variants else ""
    name = f"[{family.title}]({family.links[0]}){variants}"
    licence = family.licence
    return (
        family.kind,
        name,
        _first_paragraph(type(family), family.id),
        licence.code,
        licence.weights,
        COMMERCIAL[licence.commercial],
    )


def node_table() -> str:
    """Every node, one table for each menu: name with its help page, what it does, what it takes and gives."""
    menus: dict[str, list[Sequence[str]]] = {}
    for node in live_nodes():
        sockets = [f"{item.type}{'' if item.required else ' (optional)'}" for item in node.inputs if _is_socket(item)]
        gives = ", ".join(item.type for item in node.outputs)
        name = f"[{node.title}](../web/docs/{node.id}.md) `{node.id}`"
        row = (name, node.description, ", ".join(dict.fromkeys(sockets)) or "-", gives)
        menus.setdefault(node.category, []).append(row)
    header = ("node", "what it does", "takes", "gives")
    return "\n\n".join(f"## {menu}\n\n{markdown(header, rows)}" for menu, rows in menus.items())


def _is_socket(item: Any) -> bool:
    return item.type not in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")


def golden_parts() -> dict[str, Callable[..., None]]:
    """Every golden part by the name of its file."""
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("golden", "support")]
    from harness import load_parts

    return dict(load_parts())


def parity_summary() -> str:
    """What is proved, one row for each subject: number of golden files and their tolerances."""
    parts = golden_parts()
    subjects: dict[str, list[str]] = {}
    for name, part in sorted(parts.items()):
        subjects.setdefault(topic(part), []).append(name)
    rows = [
        (subject, str(len(names)), _range({value for name in names for value in tolerances(name, parts[name])}))
        for subject, names in sorted(subjects.items())
    ]
    return markdown(("subject", "golden files", "tolerance"), rows)


def _range(values: set[float]) -> str:
    if not values:
        return "exact, or in pixels and levels"
    least, most = short(min(values)), short(max(values))
    return least if least == most else f"{least} to {most}"


def topic(part: Callable[..., None]) -> str:
    """The subject of a part: the first paragraph of its module's docstring."""
    return _first_paragraph(inspect.getmodule(part), part.__module__).rstrip(".")


def proof(part: Callable[..., None]) -> str:
    """First paragraph of the part's docstring."""
    return _first_paragraph(part, part.__name__)


def _first_paragraph(documented: Any, name: str) -> str:
    text = inspect.getdoc(documented)
    if not text:
        raise SystemExit(f"{name} has no docstring")
    return text.split("\n\n")[0]


def tolerance(name: str, part: Callable[..., None]) -> str:
    """Tolerances the part asks for, the least first; where it measures pictures, its measure in words."""
    return OTHER_MEASURES.get(name) or ", ".join(map(short, sorted(tolerances(name, part))))


def tolerances(name: str, part: Callable[..., None]) -> set[float]:
    """Tolerances the part asks for, read from the calls of ``check`` in its module; none where it measures pictures."""
    if name in OTHER_MEASURES:
        return set()
    module: Any = inspect.getmodule(part)
    functions = {
        node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.FunctionDef)
    }
    found = {value for function in _reached(part.__name__, functions) for value in _asked(function, vars(module))}
    if not found:
        raise SystemExit(f"golden part {name} never calls check: name its measure in OTHER_MEASURES")
    return found


def short(value: float) -> str:
    """A tolerance in few letters, such as 1e-5."""
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-") if value else "0"


def _reached(name: str, functions: dict[str, ast.FunctionDef]) -> list[ast.FunctionDef]:
    """The function of that name and all of its module that it calls, directly or not."""
    names, waiting = set[str](), [name]
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.add(name)
        calls = (node.func for node in ast.walk(functions[name]) if isinstance(node, ast.Call))
        waiting += [call.id for call in calls if isinstance(call, ast.Name) and call.id in functions]
    return [functions[name] for name in names]


def _asked(function: ast.FunctionDef, known: dict[str, Any]) -> Iterator[float]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "check":
            named = [item.value for item in node.keywords if item.arg == "tolerance"]
            value = [*named, *node.args[2:3]]
            yield _number(value[0], known) if value else DEFAULT_TOLERANCE


def _number(node: ast.expr, known: dict[str, Any]) -> float:
    if isinstance(node, ast.Name) and node.id in known:
        return float(known[node.id])
    return float(ast.literal_eval(node))


TABLES: dict[str, Callable[[], str]] = {"families": family_table, "models": model_table, "nodes": node_table}
DOCUMENTS = {
    "families": ROOT / "docs" / "systems.md",
    "models": ROOT / "docs" / "files.md",
    "nodes": ROOT / "docs" / "nodes.md",
}


def with_table(text: str, name: str) -> str:
    """The text with its table made anew.

    Raises:
        SystemExit: where the table's place is missing.
    """
    place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    table = TABLES[name]()
    text, count = place.subn(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
    if count != 1:
        raise SystemExit(f"{DOCUMENTS[name].name} has {count} places for the table {name}, expected one")
    return text


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or with --check only say whether they are current."""
    stale = []
    for name, document in DOCUMENTS.items():
        old = document.read_text(encoding="utf-8")
        new = with_table(old, name)
        if new != old:
            stale.append(document.name)
        if "--check" not in arguments:
            document.write_text(new, encoding="utf-8", newline="\n")
    if "--check" not in arguments or not stale:
        return 0
    print(f"{', '.join(stale)}: not current; run python tools/dev/readme_tables.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
