"""ArcFace recognition of the insightface packs buffalo_l and antelopev2, through plain onnxruntime.

insightface itself is not needed: of a pack, only the recognition network is read. Crop and normalisation follow
insightface (model_zoo/arcface_onnx.py, utils/face_align.py): 112 px arcface template, RGB, (v - 127.5) / 127.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....faces.align import crop_faces
from ...errors import BadCheckpoint, MissingModelFile
from ...family import Licence
from ...identity import EMBEDDING
from ...model_table import published_file
from ..base import FaceEncoder
from ..missing import missing_package

IMAGE_SIZE = 112
EMBEDDING_WIDTH = 512
LICENCE = Licence(
    code="MIT",
    weights="non-commercial research only (insightface model zoo)",
    commercial=False,
    note="the published packs may not be used commercially without insightface's permission",
)


@dataclass(frozen=True)
class Pack:
    """One pack of the insightface model zoo, and what its recognition file is called."""

    name: str
    recognition: str

    @property
    def encoder_id(self) -> str:
        """Id of the encoder that this pack makes."""
        return f"arcface_{self.name}"

    @property
    def table_id(self) -> str:
        """Id of its archive in the table of published files."""
        return f"insightface_{self.name}"


# The one place where a file name decides: a pack is the folder that the user unpacked and chose, and what sets these
# networks apart for an adapter is the data they were trained on, which no tensor shows.
_PACKS = (Pack("buffalo_l", "w600k_r50.onnx"), Pack("antelopev2", "glintr100.onnx"))
PACKS = {pack.name: pack for pack in _PACKS}


class ArcFaceEncoder(FaceEncoder):
    """Feature: ``embedding`` (N, 512) not normalised: FaceID adapters normalise it, InstantID takes it as it is.

    onnxruntime owns the weights, so there is no module for the host's memory manager.
    """

    licence = LICENCE

    def __init__(self, pack: Pack, session: Any) -> None:
        self.id = pack.encoder_id
        self.title = f"ArcFace {pack.name}"
        self._session = session
        self._input = session.get_inputs()[0]

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(index), dtype=torch.long)
        crops = crop_faces(images, rows, landmarks5, "arcface", IMAGE_SIZE, padding="zeros")
        blob = ((crops * 255 - 127.5) / 127.5).to("cpu", torch.float32).contiguous()
        fixed = self._input.shape[0]
        parts = blob.split(fixed if isinstance(fixed, int) else max(len(blob), 1))
        results = [self._session.run(None, {self._input.name: part.numpy()})[0] for part in parts]
        return {EMBEDDING: torch.cat([torch.from_numpy(result) for result in results])}


def find_pack(name: str, roots: Sequence[Path]) -> Path:
    """Find the recognition file of a pack below the user's insightface folders; nothing is downloaded.

    Args:
        name: ``"buffalo_l"`` or ``"antelopev2"``.
        roots: folders that may hold ``models/<name>``, ``<name>`` or ``<name>/<name>`` (the antelopev2 archive
            unpacks to a folder inside a folder).

    Raises:
        MissingModelFile: in none of them.
    """
    for file in _places(PACKS[name], roots):
        if file.is_file():
            return file
    raise _missing_file(PACKS[name], roots)


def _places(pack: Pack, roots: Sequence[Path]) -> list[Path]:
    name = pack.name
    inside = (Path("models", name), Path(name), Path("models", name, name), Path(name, name))
    return [root / folder / pack.recognition for root in roots for folder in inside]


def load_arcface(file: Path, providers: Sequence[str] | None = None) -> ArcFaceEncoder:
    """Load a recognition file.

    Args:
        file: ``w600k_r50.onnx`` or ``glintr100.onnx``.
        providers: execution providers of onnxruntime; by default CUDA where the installed build has it, then CPU.

    Raises:
        MissingModelFile: the file is not there.
        BadCheckpoint: not a recognition network of faces, or not one of the known packs' files.
        MissingPackage: onnxruntime is not installed.
    """
    pack = _pack_of(file)
    if not file.is_file():
        raise _missing_file(pack, [file.parent])
    session = _open(file, providers)
    shapes = [list(session.get_inputs()[0].shape)[1:], list(session.get_outputs()[0].shape)[1:]]
    if shapes != [[3, IMAGE_SIZE, IMAGE_SIZE], [EMBEDDING_WIDTH]]:
        raise BadCheckpoint(
            file.name,
            expected=f"faces [3, {IMAGE_SIZE}, {IMAGE_SIZE}] to embeddings [{EMBEDDING_WIDTH}]",
            found=f"{shapes[0]} to {shapes[1]}",
            cure=f"use the recognition network of the pack {pack.name}",
        )
    return ArcFaceEncoder(pack, session)


def _pack_of(file: Path) -> Pack:
    for pack in PACKS.values():
        if file.name == pack.recognition:
            return pack
    raise BadCheckpoint(
        file.name,
        expected=" or ".join(pack.recognition for pack in PACKS.values()),
        found="another file name, by which the pack cannot be told",
        cure="choose the pack's folder as it was unpacked",
    )


def _open(file: Path, providers: Sequence[str] | None) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise missing_package("the ArcFace face encoder", ("onnxruntime",)) from error
    known = ("CUDAExecutionProvider", "CPUExecutionProvider")
    available = onnxruntime.get_available_providers()
    chosen = list(providers) if providers is not None else [name for name in known if name in available]
    unreadable = (state.Fail, state.InvalidProtobuf, state.InvalidGraph, state.InvalidArgument, state.NotImplemented)
    try:
        return onnxruntime.InferenceSession(str(file), providers=chosen)
    except unreadable as error:
        raise BadCheckpoint(
            file.name,
            expected="a complete ONNX network",
            found=f"a file of {file.stat().st_size} bytes that onnxruntime cannot read",
            cure="download the pack again and compare the sizes",
        ) from error


def _missing_file(pack: Pack, roots: Sequence[Path]) -> MissingModelFile:
    row = published_file(pack.table_id)
    where = " or ".join(f"nothing below {root}" for root in roots) or "no such folder"
    return MissingModelFile(
        f"{pack.recognition} of the pack {pack.name}",
        expected=f"it in a folder {pack.name} of models/{row.folder} ({row.weight_licence})",
        found=where,
        cure=f"get {row.file} ({row.size_text}) from {row.hub} {row.repo} and unpack it there",
    )
