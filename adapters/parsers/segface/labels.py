"""SegFace's label sets: the tokens in the order of the output channels, and the names people use for them.

The tokens' names and the data sets' names disagree on sides (the token ``rightear`` is CelebAMask-HQ's ``l_ear``), and
CelebAMask-HQ's ``l_lip`` is the lower lip; only the number of a channel counts. Names here are the data sets'.
"""

from __future__ import annotations

from dataclasses import dataclass

LABEL_SETS = ("celeba", "lapa", "helen")


@dataclass(frozen=True)
class Label:
    """One output channel: the token's name in the file, and the name for people."""

    token: str
    name: str


CELEBA: tuple[Label, ...] = (
    Label("background", "background"),
    Label("neck", "neck"),
    Label("face", "skin"),
    Label("cloth", "cloth"),
    Label("rightear", "left ear"),
    Label("leftear", "right ear"),
    Label("rightbro", "left brow"),
    Label("leftbro", "right brow"),
    Label("righteye", "left eye"),
    Label("lefteye", "right eye"),
    Label("nose", "nose"),
    Label("innermouth", "inner mouth"),
    Label("lowerlip", "lower lip"),
    Label("upperlip", "upper lip"),
    Label("hair", "hair"),
    Label("glass", "glasses"),
    Label("hat", "hat"),
    Label("earring", "earring"),
    Label("necklace", "necklace"),
)
FEW: tuple[Label, ...] = (
    Label("background", "background"),
    Label("face", "skin"),
    Label("leftbro", "left brow"),
    Label("rightbro", "right brow"),
    Label("lefteye", "left eye"),
    Label("righteye", "right eye"),
    Label("nose", "nose"),
    Label("upperlip", "upper lip"),
    Label("innermouth", "inner mouth"),
    Label("lowerlip", "lower lip"),
    Label("hair", "hair"),
)


def labels_of(label_set: str) -> tuple[Label, ...]:
    """The channels of ``"celeba"``, ``"lapa"`` or ``"helen"``."""
    return CELEBA if label_set == "celeba" else FEW
