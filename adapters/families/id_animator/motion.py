"""AnimateDiff motion files for SD1.5: recognised by their keys, read into layers named by their place in the UNet.

ID-Animator was trained on ``mm_sd_v15_v2.ckpt``. The file is no face adapter, so the registry's list does not hold
this family: `read_motion` asks it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, TensorInfo, load_strictly, load_tensors, read_header
from ...family import Ambiguity, Family, Kind, Licence, Match, rebuild, report
from ...registry import recognise
from ...tensor_info import kept_dtype
from .motion_arch import MotionLayer

MARK = ".motion_modules."
LEVELS = 4
DOWN, UP = 2, 3
PE = "temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
# The first generation has 24 positions and was trained with group norms over all frames at once.
FIRST_GENERATION = 24


class MotionNetwork(nn.Module):
    """All motion layers of a file under its own key names.

    Args:
        shapes: (width, positions) of each layer by name, such as ``down_blocks.0.motion_modules.1``.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(_level(shapes, f"down_blocks.{i}", DOWN) for i in range(LEVELS))
        self.up_blocks = nn.ModuleList(_level(shapes, f"up_blocks.{i}", UP) for i in range(LEVELS))
        if "mid_block.motion_modules.0" in shapes:
            self.mid_block = _level(shapes, "mid_block", 1)

    def layers(self) -> dict[str, MotionLayer]:
        """Every layer by its name in the file."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, MotionLayer)}


class MotionFamily(Family):
    """Temporal transformers between the blocks of an SD1.5 UNet (AnimateDiff v2 and v3)."""

    id = "animatediff_motion"
    kind: Kind = "adapter"
    title = "AnimateDiff motion module"
    folder = "face_adapters"
    links = ("https://github.com/guoyww/AnimateDiff", "https://huggingface.co/guoyww/animatediff")
    licence = Licence(code="Apache-2.0", weights="Apache-2.0", commercial=True)

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        shapes = motion_shapes(header.tensors)
        needed = [f"down_blocks.{i}.motion_modules.{j}" for i in range(LEVELS) for j in range(DOWN)]
        needed += [f"up_blocks.{i}.motion_modules.{j}" for i in range(LEVELS) for j in range(UP)]
        missing = [name for name in needed if name not in shapes]
        if missing:
            return f"no {missing[0]}"
        if {length for _, length in shapes.values()} == {FIRST_GENERATION}:
            return "a motion module of the first generation (24 frames), which normalises over frames"
        return Match(self, None, {"base": "sd15", "layers": len(shapes)})

    def build(self, header: CheckpointHeader, match: Match) -> MotionNetwork:
        tensors = {name: value for name, value in load_tensors(header).items() if MARK in name}
        with torch.device("meta"):
            network = MotionNetwork(motion_shapes(header.tensors))
        network.to(kept_dtype(next(iter(tensors.values())).dtype))
        load_strictly(network, tensors, what=header.path.name)
        return network.eval().requires_grad_(False)


def motion_shapes(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    """(width, positions) of each motion layer by name, from the shapes of its position table (1, positions, width)."""
    tables = {name.removesuffix(f".{PE}"): info.shape for name, info in tensors.items() if name.endswith(f".{PE}")}
    return {name: (shape[2], shape[1]) for name, shape in tables.items() if len(shape) == 3}


def read_motion(path: Path | str) -> tuple[MotionNetwork, str]:
    """Read a motion file; return its network and the report as text.

    Raises:
        UnknownCheckpoint: another kind of file, with the reason.
        KeyMismatch: layers that are not whole.
    """
    header = read_header(path)
    match = recognise(header, candidates=[MOTION])
    return rebuild(MOTION, header, match), report(MOTION, header, match).as_text()


def _level(shapes: Mapping[str, tuple[int, int]], name: str, count: int) -> nn.ModuleDict:
    layers = [MotionLayer(*shapes[f"{name}.motion_modules.{number}"]) for number in range(count)]
    return nn.ModuleDict({"motion_modules": nn.ModuleList(layers)})


MOTION = MotionFamily()
