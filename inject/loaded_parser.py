"""A face parser under the host's care: the value of LIKENESS_PARSER."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..adapters import registry
from ..adapters.parsers.base import FaceParser, View
from ..adapters.parsers.segface.parser import SegFaceParser
from . import model_folders
from .host import stop_if_cancelled
from .managed import ManagedNetwork
from .shared import Shared

PARSERS = model_folders.FileKind("face_parsers")
AUTO = "auto"
RESOLUTIONS = (AUTO, "224", "256", "448", "512")


class LoadedParser(FaceParser, Shared):
    """A parser whose network the host's memory manager owns; itself a parser.

    Args:
        parser: any parser of `adapters.parsers`.
    """

    def __init__(self, parser: FaceParser) -> None:
        self.parser = parser
        self.title, self.licence, self.parts = parser.title, parser.licence, parser.parts
        self.resolution, self.needs_points, self.notes = parser.resolution, parser.needs_points, parser.notes
        self.network = parser.network
        self.managed = ManagedNetwork(parser.network)

    def view(self, image: Tensor, box: Tensor, landmarks5: Tensor, margin: float) -> View:
        """As the parser does."""
        return self.parser.view(image, box, landmarks5, margin)

    def whole(self, image: Tensor, landmarks5: Tensor) -> View:
        """As the parser does."""
        return self.parser.whole(image, landmarks5)

    def labels(self, views: Sequence[View]) -> list[Tensor]:
        """As the parser does, with its network loaded by the host and a stop on cancel before each chunk."""
        stop_if_cancelled()
        self.managed.load()
        return self.parser.labels(views)


def list_parsers() -> list[str]:
    """Names for the loader's dropdown."""
    return model_folders.list_files(PARSERS)


def load_parser(file: str, variant: str, resolution: str) -> tuple[LoadedParser, str]:
    """The parser of a file, and what was recognised.

    Args:
        file: a name of `list_parsers`.
        variant: ``"auto"`` or a label set.
        resolution: one of `RESOLUTIONS`; auto takes what a converted file says of itself, else 512.

    Raises:
        MissingModelFile: no such file.
        AmbiguousCheckpoint: a file of eleven parts, LaPa's or Helen's, under ``"auto"``.
    """
    path = model_folders.find_file(PARSERS, file)
    report = registry.describe(path, "parser", variant).as_text()
    parser = registry.load(path, "parser", variant)
    if resolution != AUTO and isinstance(parser, SegFaceParser):
        parser = parser.at(int(resolution))
    told = f"parts: {', '.join(parser.parts)}\nresolution: {parser.resolution}"
    return LoadedParser(parser), f"{report}\n{told}"
