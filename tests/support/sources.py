"""The pack's Python files as syntax trees, and what they import: for the tests that keep the house rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from host_process import pack_files
from pack import ROOT

LAYERS = ("faces", "media", "adapters", "training", "evaluation", "inject", "nodes")
PACKAGES = (*LAYERS, "tools", "tests")


@dataclass(frozen=True)
class Import:
    """One imported module: absolute dotted ``name``, or the name below the root for a relative one."""

    name: str
    line: int
    relative: bool
    when: str  # "import" (module level), "call" (inside a function), "typing" (under TYPE_CHECKING)

    @property
    def top(self) -> str:
        """The first part of the name."""
        return self.name.split(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file of the pack; ``file`` is relative to the root."""

    file: Path

    @cached_property
    def text(self) -> str:
        """The file's text."""
        return (ROOT / self.file).read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text, filename=str(self.file))

    @property
    def layer(self) -> str:
        """``faces``, ``nodes``, ``tools``, ... or ``root`` for the files beside the folders."""
        return self.file.parts[0] if len(self.file.parts) > 1 else "root"

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import, and every ``import_module`` of a literal name."""
        return tuple(_imports(self.tree, self.file, "import"))


@lru_cache(maxsize=1)
def pack_sources() -> tuple[Source, ...]:
    """Every Python file of the pack and its tools, without tests."""
    return tuple(Source(file) for file in pack_files(ROOT) if file.suffix == ".py")


@lru_cache(maxsize=1)
def sources_of_tests() -> tuple[Source, ...]:
    """Every Python file of the tests."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    return tuple(Source(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts)


def _imports(node: ast.AST, file: Path, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inner = when
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "call"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            inner = "typing"
        yield from _of_statement(child, file, inner)
        yield from _imports(child, file, inner)


def _of_statement(node: ast.AST, file: Path, when: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, relative=False, when=when)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield Import(node.module or "", node.lineno, relative=False, when=when)
    elif isinstance(node, ast.ImportFrom):
        folder = file.parts[: len(file.parts) - node.level]
        for name in [node.module] if node.module else [alias.name for alias in node.names]:
            yield Import(".".join((*folder, name)), node.lineno, relative=True, when=when)
    elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__", "import_first"):
        for argument in node.args:
            name = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(name, str) and not name.startswith("."):
                yield Import(name, node.lineno, relative=False, when=when)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
