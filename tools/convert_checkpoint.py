"""Turn an old pickle into safetensors without running it: ``python tools/convert_checkpoint.py SRC [DST] [--force]``.

Tensors, parameters and numpy arrays are kept under their canonical names; every other object becomes an inert record,
is named on the screen and dropped. Exit code 0: written; 1: refused; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness_path import register

register()

from likeness_pack.adapters.checkpoint import read_contents  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.errors import BadCheckpoint  # noqa: E402
from likeness_pack.adapters.file_hash import file_sha256  # noqa: E402
from likeness_pack.adapters.file_kinds import container_of  # noqa: E402
from likeness_pack.adapters.header_torch import TorchContents, read_tensor  # noqa: E402
from likeness_pack.adapters.inert_pickle import read_inert  # noqa: E402
from likeness_pack.adapters.inert_values import ArrayRecord, InertRecord, TensorRef  # noqa: E402
from likeness_pack.adapters.nested import MAX_DEPTH, leaves  # noqa: E402
from likeness_pack.adapters.tensor_info import canonical_names  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.conversion import default_target, require_free, write_checked  # noqa: E402
from torch import Tensor  # noqa: E402

_MODULE_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True)
class Conversion:
    """What a conversion kept and dropped.

    Attributes:
        tensors: number of tensors written.
        dropped: name and class of every object that was not data.
        sha256: checksum of the written file.
    """

    tensors: int
    dropped: dict[str, str]
    sha256: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Turn an old pickle into safetensors without running it.")
    parser.add_argument("source", type=Path, help="a torch file or a plain pickle")
    parser.add_argument("target", type=Path, nargs="?", help="file to write (default: the source, as .safetensors)")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")
    parser.add_argument("--variant", help="variant to note in the file, where the tensors cannot tell")
    options = parser.parse_args(arguments)
    try:
        target = options.target or default_target(options.source)
        done = convert(options.source, target, force=options.force, variant=options.variant)
    except (LikenessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, kind in done.dropped.items():
        print(f"dropped {ascii(name)}: {ascii(kind)}")
    print(f"{done.tensors} tensors in {target}")
    print(f"sha256 {done.sha256}")
    return 0


def convert(source: Path, target: Path, *, force: bool = False, variant: str | None = None) -> Conversion:
    """Write the tensors of ``source`` as safetensors; nothing of the pickle is run.

    Raises:
        BadCheckpoint: the source is no pickle, is damaged or holds no tensors, or the target exists.
        UnsafeCheckpoint: the source is a program.
    """
    require_free(target, force)
    value, places = _read(source)
    kept, dropped = _sort(source, value)
    if not kept:
        raise _refused(source.name, "tensors", f"none ({len(dropped)} other objects)", "choose a weight file")
    names = canonical_names(kept)
    tensors = {name: _tensor(source, places, kept[raw]) for name, raw in names.items()}
    metadata = {"likeness.source": source.name, "likeness.source_sha256": file_sha256(source)}
    noted = {"likeness.variant": variant} if variant else {}
    digest = write_checked(tensors, target, metadata | noted, file_sha256)
    for raw in kept.keys() - set(names.values()):
        dropped[raw] = "state of a trainer"
    return Conversion(len(tensors), dropped, digest)


def _read(source: Path) -> tuple[Any, dict[str, int]]:
    """Return the object and the places of its storages."""
    size = source.stat().st_size
    with source.open("rb") as file:
        head = file.read(14)
        file.seek(0)
        if head[:1] == b"\x80" and head[2:3] != b"\x8a":
            return _Expansion(source.name)(read_inert(file, size, source.name).value), {}
    container, size = container_of(source)
    if container == "safetensors":
        raise _refused(source.name, "a pickle", "a safetensors file already", "use it as it is")
    contents: TorchContents = read_contents(source, size, container)
    return _Expansion(source.name)(contents.pickle.value), contents.places


class _Expansion:
    """Replaces records of whole modules by the tensors they hold, under the names of a state_dict."""

    def __init__(self, what: str) -> None:
        self._what = what
        # Shared containers are worked on once: a small file can refer to one a billion times over.
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise _refused(self._what, f"at most {MAX_DEPTH} levels", "more", "do not use this file")
        children = self._children(value)
        if children is None:
            return value
        if id(value) not in self._done:
            self._done[id(value)] = {name: self(child, depth + 1) for name, child in children.items()}
        return self._done[id(value)]

    @staticmethod
    def _children(value: Any) -> dict[Any, Any] | None:
        if isinstance(value, dict):
            return value
        if not (isinstance(value, InertRecord) and isinstance(value.state, dict) and "_modules" in value.state):
            return None
        parts = [value.state.get(part) for part in _MODULE_PARTS]
        merged = {name: child for part in parts if isinstance(part, dict) for name, child in part.items()}
        return {name: child for name, child in merged.items() if child is not None}


def _sort(source: Path, value: Any) -> tuple[dict[str, TensorRef | ArrayRecord], dict[str, str]]:
    kept: dict[str, TensorRef | ArrayRecord] = {}
    dropped: dict[str, str] = {}
    for name, leaf in leaves(value, source.name):
        if isinstance(leaf, TensorRef) or (isinstance(leaf, ArrayRecord) and leaf.tensor is not None):
            if name in kept:
                raise _refused(source.name, "every name once", f"{name} twice", "report this file")
            kept[name or "value"] = leaf
        elif not isinstance(leaf, (str, bytes, int, float, type(None))):
            dropped[name or "value"] = leaf.name if isinstance(leaf, InertRecord) else type(leaf).__name__
    return kept, dropped


def _tensor(source: Path, places: dict[str, int], leaf: TensorRef | ArrayRecord) -> Tensor:
    if isinstance(leaf, TensorRef):
        return read_tensor(source, places, leaf)
    assert leaf.tensor is not None
    return leaf.tensor.clone().contiguous()


def _refused(what: str, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(what, expected=expected, found=found, cure=cure)


if __name__ == "__main__":
    sys.exit(main())
