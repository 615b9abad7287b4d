"""Keep the model of a published SegFace file: ``python tools/convert_segface.py SRC [DST] [--variant lapa]``.

A third of the size, since the trainer's state is left out, and the written file says which label set and which
resolution it was trained for, which tensors cannot tell. Exit code 0: written; 1: refused; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness_path import register

register()

from likeness_pack.adapters import registry  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import load_tensors, read_header  # noqa: E402
from likeness_pack.adapters.parsers.segface.family import FAMILY, RESOLUTION  # noqa: E402
from likeness_pack.adapters.parsers.segface.labels import LABEL_SETS  # noqa: E402
from likeness_pack.adapters.parsers.segface.layout import model_of  # noqa: E402
from likeness_pack.adapters.registry import VARIANT_METADATA  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.conversion import default_target, require_free, write_checked  # noqa: E402

RESOLUTIONS = (224, 256, 448, 512)


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        target: the file.
        tensors: number of tensors.
        left_out: number of tensors of the trainer that were not taken.
        variant: the label set.
    """

    target: Path
    tensors: int
    left_out: int
    variant: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Keep the model of a published SegFace file.")
    parser.add_argument("source", type=Path, help="model_299.pt")
    parser.add_argument("target", type=Path, nargs="?", help="file to write (default: the source, as .safetensors)")
    parser.add_argument("--variant", choices=LABEL_SETS, default=registry.AUTO, help="needed for LaPa and Helen")
    parser.add_argument("--resolution", type=int, choices=RESOLUTIONS, default=512, help="of its training (512)")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")
    options = parser.parse_args(arguments)
    try:
        target = options.target or default_target(options.source)
        done = convert(options.source, target, options.variant, options.resolution, force=options.force)
    except (LikenessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{done.tensors} tensors of {done.variant} in {done.target}, {done.left_out} of the trainer left out")
    print("put it into models/face_parsers and choose it in Load Face Parser")
    return 0


def convert(source: Path, target: Path, variant: str, resolution: int, *, force: bool = False) -> Conversion:
    """Write the model of ``source`` as safetensors; checks that the result is recognised.

    Raises:
        BadCheckpoint: no such file, or a target that exists.
        UnknownCheckpoint: a file of another kind.
        AmbiguousCheckpoint: LaPa or Helen, and no variant given.
        UnsafeCheckpoint: a pickle that asks for code.
    """
    require_free(target, force)
    header = read_header(source)
    match = registry.recognise(header, "parser", variant, [FAMILY])
    prefix, _ = model_of(header.tensors)
    tensors = load_tensors(header, prefix)
    metadata = {
        VARIANT_METADATA: str(match.variant),
        RESOLUTION: str(resolution),
        "likeness.source": source.name,
        "likeness.source_digest": header.digest,
    }
    write_checked(tensors, target, metadata, _recognised)
    return Conversion(target, len(tensors), len(header.tensors) - len(tensors), str(match.variant))


def _recognised(path: Path) -> None:
    registry.recognise(read_header(path), "parser", candidates=[FAMILY])


if __name__ == "__main__":
    sys.exit(main())
