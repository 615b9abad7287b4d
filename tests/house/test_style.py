"""The house style that ruff does not keep: sizes, docstrings, safe calls, the project's own words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_process import pack_files
from pack import ROOT
from sources import Source, pack_sources, sources_of_tests

FUNCTION_LINES = 60
FILE_LINES = 400
# (file, function) or (file, None) -> why it may be longer
LONGER: dict[tuple[str, str | None], str] = {}

# Methods whose meaning the host or torch defines, once for all classes.
KNOWN_METHODS = {"INPUT_TYPES", "IS_CHANGED", "VALIDATE_INPUTS", "forward", "extra_repr"}
# Parts are joined here so that this file does not contain the words it looks for.
FORBIDDEN = [
    *(re.compile(rf"(?<![\w.:/-])/{folder}/") for folder in ("work", "tmp", "root")),
    re.compile("py" + r"pi\.org|pythonhos" + r"ted|npm" + r"js\.org|deb\.deb" + r"ian\.org"),
    re.compile(r"\.lib" + r"rary/|sub-?ag" + "ent", re.IGNORECASE),
]
TEXT = {".py", ".md", ".txt", ".toml", ".json", ".js", ".css", ".yml", ".yaml", ".cfg", ".html", ""}
MODE = re.compile(r"[rwaxt+]+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function of a tree, nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, call) of every call; the name is ``.name`` for methods of expressions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute; an expression in front becomes an empty part."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((item.value for item in call.keywords if item.arg == name), None)


def long_parts(source: Source) -> Iterator[str]:
    """Functions and files over the limit."""
    name = source.file.as_posix()
    lines = source.text.count("\n")
    if lines > FILE_LINES and (name, None) not in LONGER:
        yield f"{name}: {lines} lines"
    for function in functions(source.tree):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > FUNCTION_LINES and (name, function.name) not in LONGER:
            yield f"{name}:{function.lineno} {function.name}: {length} lines"


def swallowed(source: Source) -> Iterator[str]:
    """Handlers and errors that say nothing about what happened."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in kinds):
                yield f"{source.file}:{node.lineno} broad except"
        elif isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if dotted(raised) in ("Exception", "BaseException"):
                yield f"{source.file}:{node.lineno} raises a bare {dotted(raised)}"


def unsafe_calls(source: Source) -> Iterator[str]:
    """Calls that print, run code from files or start programs."""
    for name, call in calls(source.tree):
        weights_only = keyword(call, "weights_only")
        safe_load = isinstance(weights_only, ast.Constant) and weights_only.value is True
        terminal = source.layer == "tools"
        if (
            (name == "print" and not terminal)
            or (name in ("os.system", "os.popen", "eval", "exec") or name.startswith("subprocess."))
            and not terminal
            or name in ("pickle.load", "pickle.loads", "dill.load", "joblib.load")
            or (name == "torch.load" and not safe_load)
            or keyword(call, "allow_pickle") is not None
            and not isinstance(keyword(call, "allow_pickle"), ast.Constant)
        ):
            yield f"{source.file}:{call.lineno} {name}"


def without_encoding(source: Source) -> Iterator[str]:
    """Text files read or written in the encoding of whoever's machine it is."""
    for name, call in calls(source.tree):
        if keyword(call, "encoding") is not None:
            continue
        position = {"read_text": 0, "write_text": 1}.get(name.rpartition(".")[2])
        if position is not None and len(call.args) <= position:
            yield f"{source.file}:{call.lineno} {name}"
        if name == "open" and text_mode(call, 1) or name.endswith(".open") and text_mode(call, 0):
            yield f"{source.file}:{call.lineno} {name}"


def text_mode(call: ast.Call, position: int) -> bool:
    """Whether an open call opens a text file; an argument that cannot be a mode means another kind of open."""
    mode = keyword(call, "mode") or (call.args[position] if len(call.args) > position else None)
    if mode is None:
        return True
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(MODE.fullmatch(mode.value))


def documented_methods(sources: tuple[Source, ...]) -> dict[str, tuple[set[str], set[str]]]:
    """Class name -> (names of its documented methods, names of its bases)."""
    table: dict[str, tuple[set[str], set[str]]] = {}
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                documented = {item.name for item in node.body if isinstance(item, Function) and ast.get_docstring(item)}
                bases = {dotted(base).rpartition(".")[2] for base in node.bases}
                known = table.get(node.name, (set(), set()))
                table[node.name] = (known[0] | documented, known[1] | bases)
    return table


def inherits_docstring(table: dict[str, tuple[set[str], set[str]]], bases: set[str], method: str) -> bool:
    """Whether a base class of the pack documents the method."""
    return any(
        method in table[base][0] or inherits_docstring(table, table[base][1], method) for base in bases if base in table
    )


def undocumented(source: Source, table: dict[str, tuple[set[str], set[str]]]) -> Iterator[str]:
    """Public modules, classes, functions and methods without a docstring."""
    if not ast.get_docstring(source.tree) and source.text.strip():
        yield f"{source.file}: module"
    for owner in [source.tree, *(node for node in source.tree.body if isinstance(node, ast.ClassDef))]:
        bases = {dotted(base).rpartition(".")[2] for base in owner.bases} if isinstance(owner, ast.ClassDef) else set()
        for node in owner.body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_") or ast.get_docstring(node):
                continue
            known = node.name in KNOWN_METHODS or inherits_docstring(table, bases, node.name)
            private = isinstance(owner, ast.ClassDef) and owner.name.startswith("_")
            if not (isinstance(owner, ast.ClassDef) and (known or private)):
                yield f"{source.file}:{node.lineno} {node.name}"


def unannotated(source: Source) -> Iterator[str]:
    """Functions with an argument or a result whose type is not said."""
    for function in functions(source.tree):
        given = function.args
        named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        named += [item for item in (given.vararg, given.kwarg) if item is not None]
        bare = [item.arg for item in named if item.annotation is None and item.arg not in ("self", "cls")]
        if bare or function.returns is None:
            yield f"{source.file}:{function.lineno} {function.name} {bare}"


@pytest.mark.parametrize("rule", [long_parts, swallowed, unsafe_calls, without_encoding, unannotated])
def test_pack_code_follows(rule) -> None:
    found = [line for source in pack_sources() for line in rule(source)]
    assert not found, "\n".join(found)


def test_public_names_have_docstrings() -> None:
    sources = pack_sources()
    table = documented_methods(sources)
    found = [line for source in sources for line in undocumented(source, table)]
    assert not found, "\n".join(found)


def test_exceptions_are_still_needed() -> None:
    still = {
        (source.file.as_posix(), function.name)
        for source in pack_sources()
        for function in functions(source.tree)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES
    }
    still |= {(source.file.as_posix(), None) for source in pack_sources() if source.text.count("\n") > FILE_LINES}
    assert set(LONGER) <= still


def test_text_files_in_tests_have_an_encoding() -> None:
    found = [line for source in sources_of_tests() for line in without_encoding(source)]
    assert not found, "\n".join(found)


def test_test_files_have_their_own_names() -> None:
    names = [source.file.name for source in sources_of_tests() if source.file.name.startswith("test_")]
    assert len(names) == len(set(names))


def test_no_words_of_one_machine() -> None:
    found = []
    tests = [source.file for source in sources_of_tests()]
    for file in [*pack_files(ROOT), *tests, Path(".ci", "run")]:
        if file.suffix not in TEXT:
            continue
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{file}:{number} {line.strip()[:100]}" for word in FORBIDDEN if word.search(line)]
    assert not found, "\n".join(found)


EXAMPLES = [
    (swallowed, "try:\n    f()\nexcept Exception:\n    pass", 1),
    (swallowed, "try:\n    f()\nexcept:\n    pass", 1),
    (swallowed, "try:\n    f()\nexcept (ValueError, BaseException):\n    pass", 1),
    (swallowed, "try:\n    f()\nexcept ValueError:\n    raise Exception('x')", 1),
    (swallowed, "try:\n    f()\nexcept ValueError as error:\n    raise TypeError('x') from error", 0),
    (unsafe_calls, "print(1)\ntorch.load(f)\ntorch.load(f, weights_only=False)\npickle.load(f)\nos.system('x')", 5),
    (unsafe_calls, "torch.load(f, weights_only=True)\nlogger.info('x')", 0),
    (without_encoding, "open(f)\nopen(f, 'w')\np.open()\np.open('a')\np.read_text()\np.write_text(t)", 6),
    (without_encoding, "open(f, 'rb')\np.open('wb')\nImage.open(file)\np.read_text('utf-8')", 0),
    (without_encoding, "open(f, encoding='utf-8')\np.write_text(t, encoding='utf-8')", 0),
    (unannotated, "def f(a, *b, c: int) -> None: ...\ndef g(self, a: int): ...", 2),
    (unannotated, "def f(self, a: int, **more: int) -> None: ...", 0),
    (long_parts, "def f():\n" + "    x = 1\n" * 60 + "def g():\n" + "    x = 1\n" * 59, 1),
    (long_parts, "x = 1\n" * 401, 1),
]


@pytest.mark.parametrize(("rule", "code", "count"), EXAMPLES)
def test_the_rules_themselves(rule, code: str, count: int) -> None:
    source = Source(Path("adapters", "example.py"))
    source.__dict__.update(text=code, tree=ast.parse(code))
    assert len(list(rule(source))) == count


@pytest.mark.parametrize("word", ["/".join(("", "tmp", "x")), "https://py" + "pi.org/x", "a sub" + "agent"])
def test_the_forbidden_words_are_found(word: str) -> None:
    assert any(pattern.search(f"see {word}") for pattern in FORBIDDEN)
