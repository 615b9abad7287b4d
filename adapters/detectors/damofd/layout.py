"""DamoFD's sizes from the shapes in a file."""

from __future__ import annotations

import re

from ...checkpoint import CheckpointHeader
from .arch import ANCHORS, NORM_GROUPS, Block, Shape

NEEDED = (
    "backbone.module_list.0.module_list.0.netblock.weight",
    "backbone.module_list.1.module_list.0.module_list.0.netblock.weight",
    "neck.lateral_convs.0.conv.weight",
    "bbox_head.stride_cls.0.weight",
    "bbox_head.scales.0.scale",
)
_BLOCK = re.compile(r"backbone\.module_list\.(\d+)\.module_list\.(\d+)\.module_list\.0\.netblock\.weight")
# The stages after the stem; the last three feed the pyramid.
_STAGES = 4


def shape_of(header: CheckpointHeader) -> Shape | str:
    """The network's sizes, or the reason why this is no file that can be read."""
    missing = [name for name in NEEDED if not header.has(name)]
    if missing:
        return f"no {missing[0]}"
    if not header.has("bbox_head.stride_kps.0.weight"):
        return "a DamoFD without key points, which cannot align faces"
    if not header.has("bbox_head.cls_stride_convs.0.0.depthwise_conv.conv.weight"):
        return "a DamoFD of another size than 0.5G, whose blocks are of another kind"
    points = header.shape("bbox_head.stride_kps.0.weight") or ()
    if points[:1] != (10 * ANCHORS,):
        return f"stride_kps.0.weight {points} is not {10 * ANCHORS} outputs"
    stages = _stages(header)
    if isinstance(stages, str):
        return stages
    stem, pyramid = header.shape(NEEDED[0]) or (0,), header.shape("neck.lateral_convs.0.conv.weight") or (0,)
    head = header.shape("bbox_head.stride_cls.0.weight") or (0, 0)
    steps = len({name.split(".")[0] for name in header.with_prefix("bbox_head.cls_stride_convs.0.")})
    if head[1] % NORM_GROUPS or pyramid[0] % NORM_GROUPS:
        return (
            f"a pyramid of {pyramid[0]} and a head of {head[1]} channels, which {NORM_GROUPS} norm groups do not divide"
        )
    return Shape(stem[0], stages, pyramid[0], head[1], steps)


def _stages(header: CheckpointHeader) -> tuple[tuple[Block, ...], ...] | str:
    """The blocks of every stage; even places hold blocks and odd ones activations, which have no tensors."""
    places: dict[int, list[int]] = {}
    for name in header.tensors:
        found = _BLOCK.fullmatch(name)
        if found:
            places.setdefault(int(found[1]), []).append(int(found[2]))
    if sorted(places) != list(range(1, _STAGES + 1)):
        return f"stages {sorted(places)} instead of 1 to {_STAGES}"
    stages = []
    for stage in sorted(places):
        prefixes = [f"backbone.module_list.{stage}.module_list.{place}." for place in sorted(places[stage])]
        blocks = [_block(header, prefix) for prefix in prefixes]
        if None in blocks or sorted(places[stage]) != list(range(0, 2 * len(blocks), 2)):
            return f"stage {stage} is not made of inverted residual blocks"
        stages.append(tuple(block for block in blocks if block is not None))
    return tuple(stages)


def _block(header: CheckpointHeader, prefix: str) -> Block | None:
    shapes = [header.shape(f"{prefix}module_list.{number}.netblock.weight") or () for number in (0, 3, 6)]
    if any(len(shape) != 4 for shape in shapes) or shapes[1][1] != 1:
        return None
    shortcut = header.has(f"{prefix}proj.0.weight")
    return Block(shapes[0][1], shapes[0][0], shapes[2][0], shapes[1][2], shortcut)
