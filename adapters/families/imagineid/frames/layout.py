"""The file of the three adapters: safetensors with the modules' names, and metadata. The project's own layout:
``imagineid_adapters_v1``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....checkpoint import CheckpointHeader
from ....own_layouts import OwnMetadata
from ..layout import ORIGIN
from .arch import LATENT, PATCH, FrameAdapters, FrameSizes, sizes_of

FORMAT = "imagineid_adapters_v1"
CURE = "train a file with training.imagineid_frames, which writes them"
_NAMES = ("format", "base", "steps", "frames", "words", "factors")


@dataclass(frozen=True)
class FrameFacts:
    """What the tensors of a file do not say.

    Attributes:
        base: the frozen model, such as ``"sd15"``.
        steps: optimiser steps.
        frames: frames it was trained on.
        factors: digest of the file of voice factors that it belongs to.
    """

    base: str = "sd15"
    steps: int = 0
    frames: int = 0
    factors: str = ""

    def metadata(self, network: FrameAdapters) -> dict[str, str]:
        """All metadata of a file."""
        said = {name: str(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"format": FORMAT, "origin": ORIGIN, "words": str(sizes_of(network).words), **said}


def sizes_in(header: CheckpointHeader) -> FrameSizes | str:
    """The sizes that a file tells, or the reason (a clause) why it is no such file."""
    shapes = {
        name: header.shape(f"{name}.weight") or ()
        for name in (
            "textual_inversion.identity",
            "textual_inversion.emotion",
            "textual_inversion.out",
            "spatial_conditional.conv_in",
            "mask_guided_blending.conv_in",
        )
    }
    missing = [name for name, shape in shapes.items() if len(shape) < 2]
    if missing:
        return f"no {missing[0]}.weight (ImagineID's three adapters)"
    hidden, channels = shapes["spatial_conditional.conv_in"][:2]
    if channels != 3 * PATCH * PATCH or shapes["mask_guided_blending.conv_in"][1] != LATENT + 1:
        return f"spatial_conditional.conv_in.weight takes {channels} channels instead of {3 * PATCH * PATCH}"
    words = header.metadata.get("words", "")
    rows = shapes["textual_inversion.out"][0]
    if not words.isdecimal() or not int(words) or rows % int(words):
        return f"metadata words {words!r} do not part the {rows} rows of textual_inversion.out.weight"
    outs = sorted(
        (int(name.split(".")[0]), info.shape[0])
        for name, info in header.with_prefix("spatial_conditional.zero_out.").items()
        if name.endswith(".weight")
    )
    return FrameSizes(
        identity=shapes["textual_inversion.identity"][1],
        emotion=shapes["textual_inversion.emotion"][1],
        words=int(words),
        context=rows // int(words),
        levels=tuple(width for _, width in outs),
        hidden=hidden,
    )


def read_facts(header: CheckpointHeader) -> FrameFacts:
    """The metadata of a file.

    Raises:
        BadCheckpoint: metadata that are missing or no numbers, or a file never trained.
    """
    metadata = OwnMetadata(header, CURE)
    said = metadata.said(_NAMES)
    if said["format"] != FORMAT:
        raise metadata.refused(f"format {FORMAT}", said["format"])
    if not said["steps"].isdecimal() or not said["frames"].isdecimal():
        raise metadata.refused("whole numbers of steps and frames", f"{said['steps']} and {said['frames']}")
    facts = FrameFacts(said["base"], int(said["steps"]), int(said["frames"]), said["factors"])
    metadata.require_trained(facts.steps)
    return facts
