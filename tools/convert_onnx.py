"""Turn an ArcFace ONNX file into safetensors: ``python tools/convert_onnx.py SRC [DST] [--encoder-id ID] [--force]``.

Takes the recognition networks of insightface packs (w600k_r50.onnx of buffalo_l, glintr100.onnx of antelopev2) and
other exports of the same residual network; afterwards neither onnx nor onnxruntime is needed. Published files are known
by their checksum and keep their encoder's id, so that identities of both ways fit each other. Exit code 0: written;
1: refused; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness_path import register

register()

from likeness_pack.adapters.checkpoint import read_header  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.encoders.arcface_iresnet.family import ENCODER_ID, FAMILY, LEGAL_ID, SOURCE  # noqa: E402
from likeness_pack.adapters.encoders.arcface_iresnet.onnx_file import read_onnx  # noqa: E402
from likeness_pack.adapters.encoders.arcface_iresnet.onnx_weights import iresnet_weights  # noqa: E402
from likeness_pack.adapters.encoders.arcface_iresnet.published import ENCODER_IDS  # noqa: E402
from likeness_pack.adapters.errors import BadCheckpoint  # noqa: E402
from likeness_pack.adapters.family import Match  # noqa: E402
from likeness_pack.adapters.file_hash import file_sha256  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.conversion import default_target, require_free, write_checked  # noqa: E402

SOURCE_SHA256 = "likeness.source_sha256"


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        target: the file.
        encoder: id of the encoder that the file makes.
        tensors: number of tensors.
        sha256: checksum of the written file.
    """

    target: Path
    encoder: str
    tensors: int
    sha256: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Turn an ArcFace ONNX file into safetensors.")
    parser.add_argument("source", type=Path, help="the ONNX file")
    parser.add_argument("target", type=Path, nargs="?", help="file to write (default: the source, as .safetensors)")
    parser.add_argument("--encoder-id", help="id of the encoder, where the checksum is not known: arcface_<name>")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")
    options = parser.parse_args(arguments)
    try:
        target = options.target or default_target(options.source)
        done = convert(options.source, target, encoder_id=options.encoder_id, force=options.force)
    except (LikenessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{done.tensors} tensors in {done.target}, encoder {done.encoder}")
    print(f"sha256 {done.sha256}")
    print("put it into models/face_encoders and choose it in Load Face Encoder")
    return 0


def convert(source: Path, target: Path, *, encoder_id: str | None = None, force: bool = False) -> Conversion:
    """Write the weights of ``source`` under the names of our network; checks that the result is recognised and loads.

    Raises:
        BadCheckpoint: no such network, the target exists, or an id that cannot be one.
        KeyMismatch: tensors whose shapes do not fit each other.
    """
    require_free(target, force)
    if encoder_id is not None and not LEGAL_ID.fullmatch(encoder_id):
        raise _refused(
            "--encoder-id", "arcface_ and small letters, digits or _", encoder_id, "for example arcface_my_r50"
        )
    weights = iresnet_weights(read_onnx(source))
    digest = file_sha256(source)
    metadata = {SOURCE: source.name, SOURCE_SHA256: digest}
    identifier = encoder_id or ENCODER_IDS.get(digest)
    if identifier:
        metadata[ENCODER_ID] = identifier
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    built = write_checked(tensors, target, metadata, lambda written: _encoder_id(written, source))
    return Conversion(target, built, len(weights), file_sha256(target))


def _encoder_id(path: Path, source: Path) -> str:
    """Load the written file as users will; return the id of its encoder."""
    header = read_header(path)
    match = FAMILY.recognise(header)
    if not isinstance(match, Match):
        raise _refused(source.name, "a network for 112 px faces", match, "convert w600k_r50.onnx or glintr100.onnx")
    return FAMILY.build(header, match).id


def _refused(what: str, expected: str, found: str, cure: str) -> BadCheckpoint:
    return BadCheckpoint(what, expected=expected, found=found, cure=cure)


if __name__ == "__main__":
    sys.exit(main())
