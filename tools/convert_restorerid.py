"""Make a slim adapter file of RestorerID's checkpoint: ``python tools/convert_restorerid.py SRC [DST]``.

Keeps what lies on top of SD1.5 (0.5 GB in float16 instead of several GB) under the official names; the SD1.5, VAE, text
and image encoders inside are left out. Nothing of a pickle is run. Exit code 0: written; 1: refused; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import CheckpointHeader, load_tensors, read_contents, read_header  # noqa: E402
from likeness_pack.adapters.errors import BadCheckpoint  # noqa: E402
from likeness_pack.adapters.families.restorerid.family import FAMILY  # noqa: E402
from likeness_pack.adapters.families.restorerid.layout import PROJECTION, is_addition, narrowed  # noqa: E402
from likeness_pack.adapters.family import Match  # noqa: E402
from likeness_pack.adapters.file_hash import file_sha256  # noqa: E402
from likeness_pack.adapters.header_torch import read_tensor  # noqa: E402
from likeness_pack.adapters.nested import leaves  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.conversion import default_target, require_free, write_checked  # noqa: E402
from torch import Tensor  # noqa: E402

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PLUS_PREFIX = "image_proj."


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        target: the file.
        tensors: number of tensors.
        left_out: number of tensors that were not taken.
        projection: whether the file holds the projection of the reference.
        sha256: checksum of the written file.
    """

    target: Path
    tensors: int
    left_out: int
    projection: bool
    sha256: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Make a slim adapter file of RestorerID's checkpoint.")
    parser.add_argument("source", type=Path, help="RestorerIDFull.ckpt")
    parser.add_argument(
        "target", type=Path, nargs="?", help="file to write (default: the source with -slim.safetensors)"
    )
    parser.add_argument("--projection", type=Path, help="ip-adapter-faceid-plus_sd15.bin, if the source lacks it")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp16", help="of the written numbers (fp16)")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")
    options = parser.parse_args(arguments)
    try:
        target = options.target or default_target(options.source, "-slim.safetensors")
        done = convert(
            options.source, target, projection=options.projection, dtype=DTYPES[options.dtype], force=options.force
        )
    except (LikenessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{done.tensors} tensors in {done.target}, {done.left_out} left out")
    if not done.projection:
        print("no projection inside: give --projection ip-adapter-faceid-plus_sd15.bin, or connect that as faceid_plus")
    print(f"sha256 {done.sha256}")
    print("put it into models/face_adapters and choose it in Load Face Adapter")
    return 0


def convert(
    source: Path,
    target: Path,
    *,
    projection: Path | None = None,
    dtype: torch.dtype = torch.float16,
    force: bool = False,
) -> Conversion:
    """Write the adapter's part of ``source``; checks that the result is recognised.

    Raises:
        BadCheckpoint: no such file, another kind of file, or a target that exists.
    """
    require_free(target, force)
    header = read_header(source)
    _recognised(header)
    tensors = _tensors(narrowed(header, filter(is_addition, header.tensors)))
    if projection is not None:
        tensors |= _projection(projection)
    written = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    metadata = {"likeness.source": source.name, "likeness.source_digest": header.digest}
    write_checked(written, target, metadata, lambda path: _recognised(read_header(path)))
    has_projection = any(name.startswith(PROJECTION) for name in written)
    return Conversion(target, len(written), len(header.tensors) - len(written), has_projection, file_sha256(target))


def _tensors(header: CheckpointHeader) -> dict[str, Tensor]:
    """The tensors, also of a pickle that asks for more than tensors: that is described and not run."""
    if not header.foreign:
        return load_tensors(header)
    contents = read_contents(header.path, header.size, header.container)
    found = dict(leaves(contents.pickle.value, header.path.name))
    return {name: read_tensor(header.path, contents.places, found[raw]) for name, raw in header.raw_names.items()}


def _projection(path: Path) -> dict[str, Tensor]:
    tensors = load_tensors(read_header(path), PLUS_PREFIX)
    if "perceiver_resampler.proj_in.weight" not in tensors:
        raise _refused(path.name, "ip-adapter-faceid-plus_sd15.bin", "another file", "take FaceID-Plus for SD1.5")
    return {f"{PROJECTION}{name}": tensor for name, tensor in tensors.items()}


def _recognised(header: CheckpointHeader) -> None:
    match = FAMILY.recognise(header)
    if not isinstance(match, Match):
        raise _refused(header.path.name, "RestorerID's checkpoint", match, "choose RestorerIDFull.ckpt")


def _refused(what: str, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(what, expected=expected, found=found, cure=cure)


if __name__ == "__main__":
    sys.exit(main())
