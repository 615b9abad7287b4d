"""The file of voice factors: safetensors with the modules' names, and metadata that say what they were trained on.

This layout is the project's own, since none is published: ``imagineid_factors_v1``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...checkpoint import CheckpointHeader
from ...encoders.whisper.arch import HEAD_WIDTH
from ...encoders.whisper.mel import BANDS
from ...own_layouts import OwnMetadata
from .arch import CEPSTRA, FACTORS, FactorSizes, VoiceFactors

FORMAT = "imagineid_factors_v1"
ORIGIN = "this project's own construction after arXiv 2403.01901; nothing of it comes from the authors"
CURE = "train a file with tools/train_imagineid.py, which writes them"
_COUNTS = ("steps_identity", "steps_content", "steps_emotion", "clips", "voices", "emotions", "contents")


@dataclass(frozen=True)
class FactorFacts:
    """What the tensors of a file do not say.

    Attributes:
        steps_identity, steps_content, steps_emotion: optimiser steps of each stage.
        clips: labelled clips it was trained on.
        voices, emotions, contents: different labels among them.
        probe: held-out accuracies and leakage as one line, or "" where nothing was held out.
    """

    steps_identity: int = 0
    steps_content: int = 0
    steps_emotion: int = 0
    clips: int = 0
    voices: int = 0
    emotions: int = 0
    contents: int = 0
    probe: str = ""

    def metadata(self) -> dict[str, str]:
        """All metadata of a file."""
        counts = {name: str(getattr(self, name)) for name in _COUNTS}
        return {"format": FORMAT, "origin": ORIGIN, "probe": self.probe, **counts}


def sizes_of(network: VoiceFactors) -> FactorSizes:
    """The network's sizes."""
    outs = {name: int(getattr(network, name).out.weight.shape[0]) for name in FACTORS}
    return FactorSizes(int(network.identity.conv1.weight.shape[0]), len(network.identity.layers), **outs)


def sizes_in(header: CheckpointHeader) -> FactorSizes | str:
    """The sizes that a file's shapes tell, or the reason (a clause) why it is no such file."""
    outs: dict[str, int] = {}
    for name, channels in zip(FACTORS, (CEPSTRA, BANDS, BANDS), strict=True):
        first, out = header.shape(f"{name}.conv1.weight"), header.shape(f"{name}.out.weight")
        if first is None or out is None:
            return f"no {name}.conv1.weight and {name}.out.weight (voice factors)"
        if len(first) != 3 or first[1:] != (channels, 5) or first[0] % HEAD_WIDTH or len(out) != 2:
            return f"{name}.conv1.weight is {first}; voice factors have (width, {channels}, 5)"
        outs[name] = out[0]
    width = (header.shape("identity.conv1.weight") or (0,))[0]
    layers = {name.split(".")[0] for name in header.with_prefix("identity.layers.")}
    return FactorSizes(width, len(layers), **outs)


def read_facts(header: CheckpointHeader) -> FactorFacts:
    """The metadata of a file.

    Raises:
        BadCheckpoint: metadata that are missing or no numbers, or a file of which a stage was never trained.
    """
    metadata = OwnMetadata(header, CURE)
    said = metadata.said(("format", *_COUNTS))
    if said["format"] != FORMAT:
        raise metadata.refused(f"format {FORMAT}", said["format"])
    wrong = [f"{name} {said[name]}" for name in _COUNTS if not said[name].isdecimal()]
    if wrong:
        raise metadata.refused("whole numbers in the metadata", ", ".join(wrong))
    facts = FactorFacts(**{name: int(said[name]) for name in _COUNTS}, probe=header.metadata.get("probe", ""))
    raw = [name for name in FACTORS if getattr(facts, f"steps_{name}") < 1]
    if raw:
        raise metadata.refused("a trained file", f"one whose {' and '.join(raw)} was never trained")
    return facts
