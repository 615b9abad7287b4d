"""Recognises MuseTalk's UNet files of both versions."""

from __future__ import annotations

from ...checkpoint import CheckpointHeader
from ...family import Ambiguity, Family, Kind, Licence, Match
from .adapter import VERSIONS, MuseTalkFile
from .layout import widths_in

_TOKENS = 50
_LAYERS = 16


class MuseTalkFamily(Family):
    """The mouth of a face after the sound, one UNet call for each frame."""

    id = "musetalk"
    kind: Kind = "adapter"
    title = "MuseTalk"
    folder = "diffusion_models"
    variants = VERSIONS
    links = ("https://github.com/TMElyralab/MuseTalk", "https://huggingface.co/TMElyralab/MuseTalk")
    licence = Licence(
        code="MIT",
        weights="CreativeML OpenRAIL-M (as the hub's page is tagged)",
        commercial=True,
        note="OpenRAIL-M restricts what the model may be used for",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        widths = widths_in(header)
        if isinstance(widths, str):
            return widths
        hyper: dict[str, int | str | float] = {"base": "musetalk", "tokens": _TOKENS, "layers": _LAYERS}
        return Ambiguity(VERSIONS, "both versions have the same tensors, and other weights", hyper)

    def build(self, header: CheckpointHeader, match: Match) -> MuseTalkFile:
        widths = widths_in(header)
        assert not isinstance(widths, str)
        return MuseTalkFile(self.describe(header, match), header, widths)


FAMILY = MuseTalkFamily()
