"""Finds the detector of an InsightFace model pack on disk; nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...errors import BadCheckpoint, MissingModelFile

_SMALLEST_FILE = 1024
# Every ONNX file starts with the protobuf field ir_version.
_FIRST_BYTE = b"\x08"


def pack_folder(folders: Iterable[Path], pack: str) -> Path:
    """The folder that holds the ``.onnx`` files of ``pack``.

    Accepted below each of ``folders`` (such as ``models/insightface``): ``models/<pack>``, ``<pack>``, either of them
    one level deeper (``<pack>/<pack>``, as the official zip unpacks), or the folder itself if it is the pack.

    Raises:
        MissingModelFile: names the folders that were looked at and what lies there.
    """
    roots = list(folders)
    places = []
    for root in roots:
        for place in (root / "models" / pack, root / pack):
            places.extend([place, place / pack])
        if root.name == pack:
            places.append(root)
    for place in places:
        if any(place.glob("*.onnx")):
            return place
    found = sorted({str(path.relative_to(root)) for root in roots for path in root.glob("**/*.onnx")})
    raise MissingModelFile(
        f"InsightFace pack {pack}",
        expected=f".onnx files in {' or '.join(str(place) for place in places[:3])}",
        found=", ".join(found[:8]) if found else "no .onnx file at all",
        cure=f"unpack {pack}.zip of github.com/deepinsight/insightface (model zoo; non-commercial research only) there",
    )


def detector_candidates(folder: Path) -> list[Path]:
    """The pack's ``.onnx`` files, the likely detectors first; each is checked before it is opened.

    Raises:
        BadCheckpoint: a file that is no ONNX file (empty, cut short, a web page).
    """
    files = sorted(folder.glob("*.onnx"), key=lambda path: (not _named_like_detector(path), path.stat().st_size))
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as stream:
            first = stream.read(1)
        if size < _SMALLEST_FILE or first != _FIRST_BYTE:
            raise BadCheckpoint(
                str(path),
                expected="an ONNX file",
                found=f"{size} bytes that begin with {first!r}",
                cure="download the pack again and unpack it whole",
            )
    return files


def _named_like_detector(path: Path) -> bool:
    """Only the order of opening depends on names; what a file is, its outputs say."""
    return any(word in path.stem.lower() for word in ("det", "scrfd"))
