"""The file of a trained emotion module: safetensors with the modules' names, and metadata that say how it was trained.

This layout is the project's own, since none is published: ``avatar_emotion_v1``.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass

from ...checkpoint import CheckpointHeader
from ...own_layouts import OwnMetadata
from .arch import CHANNELS, SIDE, EmotionSizes

FORMAT = "avatar_emotion_v1"
BASE = "hunyuan_video"
# Factor between the VAE's latent and the one the DiT works on.
LATENT_SCALE = 0.476986
CURE = "train a file with tools/train_avatar_emotion.py, which writes it"
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
# Sides of an emotion picture are whole tokens: a cell of the latent is 8 pixels, a token two cells.
MULTIPLE = 16


@dataclass(frozen=True)
class EmotionFacts:
    """What the tensors of a file do not say.

    Attributes:
        steps: optimiser steps that were made.
        clips: how many clips it was trained on.
        picture_size: side of a square of as many pixels as the emotion pictures had.
    """

    steps: int = 0
    clips: int = 0
    picture_size: int = 512

    def metadata(self, sizes: EmotionSizes) -> dict[str, str]:
        """All metadata of a file with a network of these sizes."""
        numbers = {**asdict(self), "heads": sizes.heads}
        return {"format": FORMAT, "base": BASE, **{name: str(value) for name, value in numbers.items()}}


def picture_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width, in multiples of 16, of a picture of about ``size * size`` pixels in the same proportion."""
    factor = size / math.sqrt(max(1, height * width))
    high, wide = (max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in (height, width))
    return high, wide


def sizes_in(header: CheckpointHeader) -> EmotionSizes | str:
    """The widths that a file's shapes tell, or the reason (a clause) why it is no such file."""
    proj, query, pair = (
        header.shape(name) for name in ("proj.weight", "blocks.0.to_q.weight", "blocks.0.to_kv.weight")
    )
    gate = header.shape("blocks.0.gate.weight")
    if proj is None or query is None or pair is None or gate is None:
        return "no proj.weight with blocks.0.to_q, to_kv and gate (emotion module)"
    if len(proj) != 2 or proj[1] != CHANNELS * SIDE * SIDE or len(query) != 2 or len(pair) != 2:
        return f"proj.weight of shape {proj}; an emotion module has (width, {CHANNELS * SIDE * SIDE})"
    inner, width = query
    if pair != (2 * inner, proj[0]):
        return f"to_kv.weight of shape {pair}; an emotion module has ({2 * inner}, {proj[0]})"
    modules = {int(found[1]) for name in header.tensors if (found := _BLOCK.match(name))}
    return EmotionSizes(width, inner, 1, proj[0], len(modules))


def read_facts(header: CheckpointHeader, inner: int) -> tuple[EmotionFacts, int]:
    """What a file's metadata say: its facts and the number of heads.

    Raises:
        BadCheckpoint: metadata that are missing, wrong or contradict the shapes; or a file never trained.
    """
    names = ("format", "base", "heads", *EmotionFacts.__dataclass_fields__)
    metadata = OwnMetadata(header, CURE)
    said = metadata.said(names)
    if (said["format"], said["base"]) != (FORMAT, BASE):
        raise metadata.refused(f"format {FORMAT} for {BASE}", f"{said['format']} for {said['base']}")
    try:
        numbers = {name: int(said[name]) for name in names[2:]}
    except ValueError as error:
        raise metadata.refused("whole numbers in the metadata", str(error)) from error
    heads = numbers.pop("heads")
    facts = EmotionFacts(**numbers)
    if heads < 1 or inner % heads or facts.picture_size < MULTIPLE:
        expected = f"a number of heads that divides {inner}, and pictures of {MULTIPLE} pixels or more"
        raise metadata.refused(expected, f"{heads} heads, {facts.picture_size} pixels")
    metadata.require_trained(facts.steps)
    return facts, heads
