"""Recognises emotion modules that this project's own training writes; nobody else publishes any."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from ...report import DetectionReport
from .adapter import AvatarEmotionAdapter
from .arch import EmotionNetwork, EmotionSizes
from .layout import BASE, read_facts, sizes_in


class AvatarEmotionFamily(Family):
    """Cross-attention to an emotion picture behind HunyuanVideo's double blocks."""

    id = "avatar_emotion"
    kind: Kind = "adapter"
    title = "Avatar Emotion (AEM)"
    folder = "face_adapters"
    links = ("https://arxiv.org/abs/2505.20156",)
    licence = Licence(
        code="this project's own, after the paper; the authors of HunyuanVideo-Avatar released no code of it",
        weights="that of whoever trained the file; none is published",
        commercial=None,
        note="trained here, not by the authors: no number of the paper is promised",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        once = sum(info.nbytes for name, info in header.tensors.items() if _runs_once(name))
        hyper: dict[str, int | str | float] = {
            "base": BASE,
            "layers": sizes.modules,
            "width": sizes.width,
            "inner": sizes.inner,
            "emotion_width": sizes.emotion_width,
            "encode_bytes": once,
            "sample_bytes": sum(info.nbytes for info in header.tensors.values()) - once,
        }
        return Match(self, None, hyper)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """The usual facts, and how the file was trained. Raises BadCheckpoint where its metadata do not say so."""
        facts, heads = read_facts(header, int(match.hyper["inner"]))
        report = super().describe(header, match)
        trained = f"{heads} heads; {facts.steps} steps on {facts.clips} clips, pictures of {facts.picture_size} px"
        return replace(report, notes=(*report.notes, trained))

    def build(self, header: CheckpointHeader, match: Match) -> AvatarEmotionAdapter:
        width, inner, tokens, modules = (int(match.hyper[n]) for n in ("width", "inner", "emotion_width", "layers"))
        facts, heads = read_facts(header, inner)
        with torch.device("meta"):
            network = EmotionNetwork(EmotionSizes(width, inner, heads, tokens, modules))
        load_strictly(network, load_tensors(header), what=header.path.name)
        return AvatarEmotionAdapter(self.describe(header, match), header.digest, network, facts)


def _runs_once(name: str) -> bool:
    return name.startswith("proj.") or ".to_kv." in name


FAMILY = AvatarEmotionFamily()
