"""Swap faces in a clip, from file to file, without ComfyUI.

``python tools/swap_clip.py IN OUT --source face.jpg --swapper FILE --insightface DIR``. Number of frames, time stamps,
rotation, sound and subtitles stay. Ctrl-C stops and leaves no file. Exit code 0: written; 1: refused, with one
sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from likeness_path import register
from torch import Tensor

register()

from likeness_pack.adapters import registry  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.clip_faces import FollowOptions  # noqa: E402
from likeness_pack.adapters.detectors import packages as detector_packages  # noqa: E402
from likeness_pack.adapters.encoders import packages as encoder_packages  # noqa: E402
from likeness_pack.adapters.encoders.base import FaceEncoder, encode_photos  # noqa: E402
from likeness_pack.adapters.identity import Identity  # noqa: E402
from likeness_pack.adapters.identity_ops import combine  # noqa: E402
from likeness_pack.adapters.parsers.base import FaceParser  # noqa: E402
from likeness_pack.adapters.swappers.base import FaceSwapper  # noqa: E402
from likeness_pack.adapters.swappers.clip import ClipMasks, ClipSwap, swap_clip  # noqa: E402
from likeness_pack.adapters.swappers.onnx_swapper.swapper import load_onnx_swapper  # noqa: E402
from likeness_pack.adapters.swappers.pipeline import SwapOptions  # noqa: E402
from likeness_pack.evaluation.clip_choice import clip_choice  # noqa: E402
from likeness_pack.faces.colour_transfer import TRANSFERS  # noqa: E402
from likeness_pack.faces.detect import detect_faces  # noqa: E402
from likeness_pack.faces.select import ORDERS  # noqa: E402
from likeness_pack.faces.swap_paste import PasteOptions  # noqa: E402
from likeness_pack.faces.types import Faces  # noqa: E402
from likeness_pack.media.pictures import read_picture  # noqa: E402
from likeness_pack.media.transform import ClipJob  # noqa: E402
from likeness_pack.media.write import WriteOptions  # noqa: E402
from likeness_pack.tools.command_line import exit_code  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = parser().parse_args(arguments)
    return exit_code(lambda: _swap(chosen), stopped="stopped; no file was written")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(description="Swap faces in a clip, from file to file, without ComfyUI.")
    made.add_argument("clip", type=Path, help="the clip")
    made.add_argument("output", type=Path, help="the new clip: .mp4, .mov or .mkv")
    made.add_argument("--source", type=Path, required=True, nargs="+", help="photos of whom the faces become")
    made.add_argument("--swapper", type=Path, required=True, help="inswapper, ReSwapper or HyperSwap")
    made.add_argument("--variant", default="auto", help="128 or 256, for ReSwapper .pth files")
    made.add_argument("--provider", default="auto", help="where ONNX files run: auto, cuda, cpu, ...")
    made.add_argument("--device", default="cpu", help="where torch networks run: cpu, cuda, mps")
    made.add_argument("--detector", default="mtcnn", help="a name (mtcnn, insightface_buffalo_l) or a file")
    made.add_argument("--encoder", default="arcface_buffalo_l", help="a name or a file")
    made.add_argument("--insightface", type=Path, action="append", default=[], help="folder with models/buffalo_l")
    _choosing(made)
    _looks(made)
    made.add_argument("--on-missing-face", choices=["keep", "skip", "error"], default="keep")
    made.add_argument("--chunk", type=int, default=16, help="frames in memory at a time")
    made.add_argument("--quality", type=int, default=18, help="0 (lossless) to 51, for H.264")
    made.add_argument("--damaged", choices=["error", "keep"], default="error", help="a clip that goes bad on the way")
    made.add_argument("--quiet", action="store_true", help="no progress")
    return made


def _choosing(made: argparse.ArgumentParser) -> None:
    made.add_argument("--no-track", action="store_true", help="each frame for itself")
    made.add_argument("--faces", default="", help="persons' numbers, such as 0 or 0,2; all if left out")
    made.add_argument("--order", choices=ORDERS, default=ORDERS[0], help="how faces are numbered with --no-track")
    made.add_argument("--reference", type=Path, nargs="+", help="photos of the person in the clip to swap")
    made.add_argument("--limit", type=float, help="least cosine to be the reference")
    made.add_argument("--score", type=float, help="least score of a face")
    made.add_argument("--smooth", type=int, default=0, help="average points over so many frames to both sides")


def _looks(made: argparse.ArgumentParser) -> None:
    made.add_argument("--boost", type=int, default=1, help="crops so many times as wide as the network's")
    made.add_argument("--weight", type=float, default=0.5, help="0.5: the person as encoded")
    made.add_argument("--colour", choices=TRANSFERS, default="none", help="colours of the faces that were there")
    made.add_argument("--strength", type=float, default=1.0, help="how much of the swap is seen")
    made.add_argument("--shrink", type=int, help="pixels cut off the mask's rim")
    made.add_argument("--feather", type=int, help="pixels over which the rim fades")
    made.add_argument("--sides", type=float, nargs=4, default=(0.0,) * 4, metavar=("TOP", "RIGHT", "BOTTOM", "LEFT"))
    made.add_argument("--parser", type=Path, help="a face parser, to swap named parts only")
    made.add_argument("--parser-variant", default="auto", help="lapa or helen, where the file cannot tell")
    made.add_argument("--parts", default="face", help="parts to swap, with --parser")


def _swap(chosen: argparse.Namespace) -> int:
    detector, encoder = _detector(chosen), _encoder(chosen)
    identity = _identity(chosen.source, detector, encoder)
    reference = _identity(chosen.reference, detector, encoder) if chosen.reference else None
    compares = reference is not None or chosen.weight != 0.5 or not chosen.no_track
    job = ClipSwap(
        detector,
        _swapper(chosen),
        identity,
        encoder if compares else None,
        clip_choice(chosen.order, chosen.faces, reference, chosen.limit),
        FollowOptions(chosen.score, not chosen.no_track, smooth=chosen.smooth),
        SwapOptions(chosen.boost, weight=chosen.weight),
        PasteOptions(chosen.shrink, chosen.feather, chosen.colour, strength=chosen.strength),
        ClipMasks(tuple(chosen.sides), parser=_face_parser(chosen), parts=chosen.parts),
        chosen.on_missing_face,
    )
    clip = ClipJob(chosen.clip, chosen.output, chosen.chunk, WriteOptions(quality=chosen.quality), chosen.damaged)
    _, _, report = swap_clip(clip, job, None if chosen.quiet else _progress())
    print(f"{chosen.output}\n{report}")
    return 0


def _progress() -> Callable[[int, int], None]:
    """Tells how far it is, at most once a second."""
    last = 0.0

    def told(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 or done == total:
            last = now
            print(f"\r{100 * done // max(1, total)} %", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return told


def _identity(photos: Sequence[Path], detector: Any, encoder: FaceEncoder) -> Identity:
    """One row for each photo's best face."""
    found = []
    for path in photos:
        picture = read_picture(path)
        faces, _ = detect_faces(picture, detector, label=path.name)
        found.append(encode_photos(encoder, picture, faces))
    return found[0] if len(found) == 1 else combine(found, "concat")


class PlacedDetector:
    """A detector whose network is on a device, and to which pictures are brought."""

    def __init__(self, detector: Any, device: str) -> None:
        self.name, self.default_score, self.network = detector.name, detector.default_score, detector.network
        self._detector, self._device = _placed(detector, device), device

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """See `faces.detect.Detector`."""
        found: list[Faces] = self._detector(images if self.network is None else images.to(self._device), score)
        return found


def _placed(owner: Any, device: str) -> Any:
    if owner.network is not None:
        owner.network.to(device)
    return owner


def _swapper(chosen: argparse.Namespace) -> FaceSwapper:
    if chosen.swapper.suffix.lower() == ".onnx":
        return load_onnx_swapper(chosen.swapper, chosen.provider)
    built: FaceSwapper = _placed(registry.load(chosen.swapper, "swapper", chosen.variant), chosen.device)
    return built


def _detector(chosen: argparse.Namespace) -> PlacedDetector:
    return PlacedDetector(detector_packages.load_named(chosen.detector, chosen.insightface), chosen.device)


def _encoder(chosen: argparse.Namespace) -> FaceEncoder:
    built: FaceEncoder = _placed(encoder_packages.load_named(chosen.encoder, chosen.insightface), chosen.device)
    return built


def _face_parser(chosen: argparse.Namespace) -> FaceParser | None:
    if chosen.parser is None:
        return None
    built: FaceParser = _placed(registry.load(chosen.parser, "parser", chosen.parser_variant), chosen.device)
    return built


if __name__ == "__main__":
    sys.exit(main())
