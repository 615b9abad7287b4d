"""Say what a checkpoint is, without loading it: ``python tools/inspect_checkpoint.py FILE``.

Prints one JSON object. Exit code 0: recognised; 1: refused, the object holds the sentence; 2: wrong usage.
Needs torch, numpy and safetensors; neither ComfyUI nor any optional package.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likeness_path import register

register()

from likeness_pack.adapters import registry  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import read_header  # noqa: E402
from likeness_pack.adapters.model_table import find_by_size_or_hash  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402

if TYPE_CHECKING:
    from likeness_pack.adapters.checkpoint import CheckpointHeader

KINDS = ("adapter", "encoder", "detector", "parser", "swapper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    report: dict[str, Any] = {"file": str(options.file), "recognised": False}
    try:
        header = read_header(options.file)
        report |= _file_facts(header)
        match = registry.recognise(header, options.kind, options.variant)
        report |= {"recognised": True} | match.family.describe(header, match).as_dict() | _trust(match.family)
    except LikenessError as error:
        report |= _refusal(error)
    json.dump(report, sys.stdout, ensure_ascii=True, indent=2)
    print()
    return 0 if report["recognised"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Say what a checkpoint is, without loading it.")
    parser.add_argument("file", type=Path, help="a safetensors or torch file")
    parser.add_argument("--kind", choices=KINDS, default=None, help="consider only families of this kind")
    parser.add_argument("--variant", default="auto", help="the variant, where the tensors cannot tell")
    return parser


def _file_facts(header: CheckpointHeader) -> dict[str, Any]:
    return {
        "size": header.size,
        "container": header.container,
        "tensors": len(header.tensors),
        "digest": header.digest,
        "needs_conversion": list(header.foreign),
        "published_as": [row.id for row in find_by_size_or_hash(header.size)],
    }


def _trust(family: registry.Family) -> dict[str, Any]:
    return {"kind": family.kind, "links": list(family.links), "folder": family.folder}


def _refusal(error: LikenessError) -> dict[str, Any]:
    refusal: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    for name in ("reasons", "candidates"):
        value = getattr(error, name, None)
        if value:
            refusal[name] = value
    return refusal


if __name__ == "__main__":
    sys.exit(main())
