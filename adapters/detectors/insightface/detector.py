"""SCRFD of an InsightFace pack as a detector: onnxruntime runs the network; decoding is ours or the package's own."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ....faces.types import Faces
from ...errors import BadCheckpoint
from ...family import Licence
from ..pictures import chunks, pixel_values
from .files import detector_candidates, pack_folder
from .scrfd import DEFAULT_SIZES, Size, detect
from .sessions import missing_package, open_session

LICENCE = Licence(
    code="MIT",
    weights="non-commercial research only (InsightFace)",
    commercial=False,
    note="InsightFace's published packs; ask contact@insightface.ai for other use",
)
OUTPUTS = 9
Decoder = Literal["torch", "insightface"]


class InsightFaceDetector:
    """SCRFD as a ``faces.detect.Detector``. The weights live in onnxruntime, so ``network`` is None.

    Args:
        session: an onnxruntime session with SCRFD's nine outputs.
        title: name for reports.
        notes: sentences for the report, such as another provider than the one asked for.
        official: insightface's own SCRFD object to decode with, or None for the decoding of this project.
    """

    default_score = 0.5
    licence = LICENCE
    network: torch.nn.Module | None = None

    def __init__(self, session: Any, title: str, notes: tuple[str, ...] = (), official: Any = None) -> None:
        self.session = session
        self.name = "insightface"
        self.title = title
        self.notes = notes
        self.official = official
        self.sizes = _sizes(session)

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Faces of each of the (B, H, W, 3) pictures 0..1; published graphs take one picture at a time."""
        found: list[Faces] = []
        for part in chunks(images):
            for pixels in pixel_values(part, torch.device("cpu")).permute(0, 2, 3, 1).to(torch.uint8):
                found.append(self._by_package(pixels, score) if self.official else self._by_torch(pixels, score))
        return found

    def _by_torch(self, pixels: Tensor, score: float) -> Faces:
        name = self.session.get_inputs()[0].name

        def run(blob: Tensor) -> list[Tensor]:
            return [torch.from_numpy(value) for value in self.session.run(None, {name: blob.numpy()})]

        return detect(pixels, run, score, self.sizes)

    def _by_package(self, pixels: Tensor, score: float) -> Faces:
        blue_first = pixels.flip(-1).contiguous().numpy()
        boxes, points = self.official.detect(blue_first, det_thresh=score)
        values = torch.from_numpy(boxes).float()
        return Faces(values[:, :4], torch.from_numpy(points).float(), values[:, 4])


def load_insightface_detector(
    folders: Iterable[Path], pack: str = "buffalo_l", provider: str = "auto", decoder: Decoder = "torch"
) -> InsightFaceDetector:
    """Open the detector of a model pack.

    Files are looked for and checked before anything of onnxruntime or insightface is called: insightface's own
    constructors would download what is missing.

    Args:
        folders: InsightFace model folders of the host, such as ``models/insightface``.
        pack: ``buffalo_l``, ``antelopev2`` and so on.
        provider: "auto", or one of "cuda", "coreml", "directml", "rocm", "cpu".
        decoder: "torch" needs onnxruntime alone; "insightface" uses the SCRFD class of insightface 2 or newer.

    Raises:
        MissingModelFile: no such pack in the folders.
        BadCheckpoint: broken files, or none with SCRFD's nine outputs.
        MissingPackage: onnxruntime, or insightface where asked for, is not installed.
    """
    folder = pack_folder(folders, pack)
    seen = []
    for path in detector_candidates(folder):
        session, notes = open_session(path, provider)
        count = len(session.get_outputs())
        if count == OUTPUTS:
            official = _official(path, session) if decoder == "insightface" else None
            return InsightFaceDetector(session, f"SCRFD {path.name} of {pack}", notes, official)
        seen.append(f"{path.name} ({count} outputs)")
    raise BadCheckpoint(
        str(folder),
        expected=f"an SCRFD detector with {OUTPUTS} outputs (scores, boxes and points of three strides)",
        found=", ".join(seen),
        cure="use a pack that holds a detector, such as buffalo_l or antelopev2",
    )


def _official(path: Path, session: Any) -> Any:
    try:
        module = importlib.import_module("insightface.model_zoo.scrfd")
    except ImportError as cause:
        raise missing_package("insightface", str(cause)) from cause
    return module.SCRFD(model_file=str(path), session=session)


def _sizes(session: Any) -> tuple[Size, ...]:
    """The input size a graph is fixed to, else the two that insightface looks at."""
    shape = session.get_inputs()[0].shape
    if len(shape) == 4 and all(isinstance(side, int) and side > 0 for side in shape[2:]):
        return ((int(shape[3]), int(shape[2])),)
    return DEFAULT_SIZES
