"""Tell what made pictures and clips, as the files say.

``python tools/provenance.py FILE... [--json] [--mark]``. Exit code 0: every file has provenance; 1: at least one has
none, or cannot be read; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from likeness_path import register

register()

from likeness_pack.adapters.provenance import manifest_of, manifest_text  # noqa: E402  (the package comes first)
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.media.invisible_mark import is_marked  # noqa: E402
from likeness_pack.media.pictures import read_picture  # noqa: E402
from likeness_pack.media.texts import read_texts  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    return max([_tell(path, chosen.json, chosen.mark) for path in chosen.files])


def _tell(path: Path, as_json: bool, mark: bool) -> int:
    try:
        manifest = manifest_of(read_texts(path), path.name)
        told = json.dumps(manifest.as_dict(), ensure_ascii=False) if as_json else manifest_text(manifest)
        print(f"{path.name}\n{told}" if not as_json else told)
        if mark:
            print(f"invisible mark: {'found' if is_marked(read_picture(path)[0]) else 'not found'}")
    except LikenessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="PNG, MP4, MOV or MKV files")
    parser.add_argument("--json", action="store_true", help="one JSON object for each file")
    parser.add_argument("--mark", action="store_true", help="look for the invisible mark in pictures too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
