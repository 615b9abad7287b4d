"""Build DreamID's triplets out of photos of persons, one folder each, with a face swapper of this pack.

``python tools/build_triplets.py --photos DIR --swapper FILE --encoder NAME_OR_FILE --output DIR``. For the fine-tune
that takes glasses from the source give --glasses-parser and --without-glasses; for the one that takes the face's shape
give --outline. Exit code 0: written; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from likeness_path import register

register()

from likeness_pack.adapters import registry  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.detectors import packages as detectors  # noqa: E402
from likeness_pack.adapters.encoders import packages as encoders  # noqa: E402
from likeness_pack.adapters.swappers.base import FaceSwapper  # noqa: E402
from likeness_pack.faces.types import FaceBatch  # noqa: E402
from likeness_pack.tools.command_line import add_numbers, exit_code  # noqa: E402
from likeness_pack.training.dreamid_build import BuildOptions, BuildReport, GlassesEdit, build_triplets  # noqa: E402
from likeness_pack.training.dreamid_photos import (  # noqa: E402
    PhotoReader,
    glasses_of,
    parsed_share,
    read_persons,
    swapper_proxy,
)
from torch import Tensor  # noqa: E402

POINTS = ("68", "5")
GLASSES = "glasses"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if (chosen.glasses_parser is None) != (chosen.without_glasses is None):
        parser.error("--glasses-parser and --without-glasses belong together")
    return exit_code(lambda: _build(chosen), stopped="stopped; nothing was listed, so start again in a new folder")


def _build(chosen: argparse.Namespace) -> int:
    encoder = encoders.load_named(chosen.encoder, _packs(chosen))
    detector = detectors.load_named(chosen.detector, _packs(chosen))
    reader = PhotoReader(detector, encoder, chosen.size, _points() if chosen.points == "68" else None)
    swapper = _swapper(chosen.swapper)
    persons, left_out = read_persons(chosen.photos, reader)
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    print(f"{sum(map(len, persons.values()))} photos of {len(persons)} persons")
    options = BuildOptions(
        chosen.seed, chosen.each, chosen.limit, chosen.same_person, chosen.sharpness, chosen.pose, chosen.outline
    )

    def told(report: BuildReport) -> None:
        done = report.kept + sum(report.dropped.values())
        if done % 50 == 0:
            print(f"{done} tried, {report.kept} kept", flush=True)

    proxy = swapper_proxy(swapper, encoder.id, chosen.boost)
    report = build_triplets(persons, proxy, reader, chosen.output, options, _glasses(chosen, reader), told)
    print(f"{chosen.output}\n{report.as_text()}")
    return 0


def _packs(chosen: argparse.Namespace) -> list[Path]:
    return [chosen.packs] if chosen.packs else []


def _swapper(path: Path) -> FaceSwapper:
    if path.suffix.lower() == ".onnx":
        from likeness_pack.adapters.swappers.onnx_swapper.swapper import load_onnx_swapper

        return load_onnx_swapper(path, "auto")
    swapper: FaceSwapper = registry.load(path, kind="swapper")
    return swapper


def _points() -> Callable[[Tensor, FaceBatch], Tensor]:
    from likeness_pack.adapters.detectors.points68 import load_dlib_points

    find = load_dlib_points()
    return lambda image, faces: find(image, faces)[0][0]


def _glasses(chosen: argparse.Namespace, reader: PhotoReader) -> GlassesEdit | None:
    if chosen.glasses_parser is None:
        return None
    parser = registry.load(chosen.glasses_parser, kind="parser")
    return glasses_of(partial(parsed_share, parser, GLASSES), chosen.without_glasses, reader)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Build DreamID's triplets out of photos of persons.")
    parser.add_argument("--photos", type=Path, required=True, help="one sub-folder of photos for each person")
    parser.add_argument("--swapper", type=Path, required=True, help="inswapper, ReSwapper, HyperSwap")
    parser.add_argument("--encoder", required=True, help="arcface_buffalo_l, or the file of a face encoder")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--packs", type=Path, help="folder of insightface's model packs")
    parser.add_argument("--detector", default=detectors.MTCNN, help="a detector's name, or the file of one")
    parser.add_argument("--points", choices=POINTS, default="68", help="landmarks: 68 by dlib, or the detector's 5")
    parser.add_argument("--glasses-parser", type=Path, help="SegFace file: keep pairs that both wear glasses")
    parser.add_argument("--without-glasses", type=Path, help="the same photos, glasses removed by another tool")
    numbers = (
        ("size", 512, "side of the cut-out pictures"),
        ("seed", 0, "decides who is paired"),
        ("each", 1, "other persons for each ordered pair of photos"),
        ("limit", 0, "triplets in all; 0 for no limit"),
        ("boost", 1, "pixel boost of the swapper"),
        ("same-person", 0.5, "least cosine of A1 and A2"),
        ("sharpness", 50.0, "least variance of the Laplacian"),
        ("pose", 0.1, "largest distance of landmarks, in eye distances"),
        ("outline", 0.0, "largest change of B~'s outline; 0.12 for the fine-tune of face shape"),
    )
    add_numbers(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
