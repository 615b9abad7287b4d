"""Files whose origin can be checked: those of the host's folders for adapters, encoders, LoRAs and checkpoints."""

from __future__ import annotations

from pathlib import Path

from ..adapters.checkpoint import CheckpointHeader, read_header
from .model_folders import FileKind, find_file, list_files

NONE = "none"
FILES = FileKind(
    "face_adapters",
    ("face_encoders", "face_swappers", "face_parsers", "face_detectors", "loras", "ipadapter", "checkpoints",
     "diffusion_models", "unet"),
)  # fmt: skip


def list_lineage_files() -> list[str]:
    """Names for a dropdown."""
    return list_files(FILES)


def lineage_file(choice: str) -> Path:
    """The file behind a dropdown entry."""
    return find_file(FILES, choice)


def header(choice: str) -> CheckpointHeader:
    """The header of a dropdown entry's file."""
    return read_header(lineage_file(choice))
