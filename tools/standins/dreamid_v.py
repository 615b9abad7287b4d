"""Key lists of DreamID-V's two files, by formula: a Wan 2.1 model of 48 channels with ref_conv, and the pose branch."""

from __future__ import annotations

from collections.abc import Sequence

from .blocks import conv, linear
from .fill import Shapes

# Width and inner width of the published files.
LEVELS = (1536, 8960)
BLOCKS = 30
TEXT, FREQUENCIES, CHANNELS, POSE = 4096, 256, 16, 512


def faster(levels: Sequence[int] = LEVELS, blocks: int = BLOCKS) -> Shapes:
    """The file without pose branch."""
    width, inner = levels
    shapes: Shapes = {"patch_embedding.weight": (width, 3 * CHANNELS, 1, 2, 2), "patch_embedding.bias": (width,)}
    shapes |= conv("ref_conv", CHANNELS, width, 2) | {"head.modulation": (1, 2, width)}
    for name, first in (("text", TEXT), ("time", FREQUENCIES)):
        shapes |= linear(f"{name}_embedding.0", first, width) | linear(f"{name}_embedding.2", width, width)
    shapes |= linear("time_projection.1", width, 6 * width) | linear("head.head", width, 4 * CHANNELS)
    for number in range(blocks):
        block = f"blocks.{number}"
        shapes |= {f"{block}.modulation": (1, 6, width)}
        shapes |= {f"{block}.norm3.weight": (width,), f"{block}.norm3.bias": (width,)}
        shapes |= linear(f"{block}.ffn.0", width, inner) | linear(f"{block}.ffn.2", inner, width)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for part in "qkvo":
                shapes |= linear(f"{attention}.{part}", width, width)
            shapes |= {f"{attention}.norm_q.weight": (width,), f"{attention}.norm_k.weight": (width,)}
    return shapes


def pose(levels: Sequence[int] = LEVELS, blocks: int = BLOCKS) -> Shapes:
    """The file with pose branch, its unused weights included."""
    width = levels[0]
    shapes = faster(levels, blocks)
    for number in (0, 1):
        name = f"project_pose.time_down.{number}"
        shapes |= {f"{name}.weight": (3, 3, 3), f"{name}.bias": (3,)}
    for number, (inputs, outputs) in enumerate(((3, 128), (128, 256), (256, POSE), (POSE, POSE))):
        shapes |= conv(f"project_pose.convs.{3 * number}", inputs, outputs, 3)
    shapes |= linear("project_pose.out.proj", 4 * POSE, width)
    for number in range(blocks):
        for attention in (f"blocks.{number}.self_attn", f"blocks.{number}.cross_attn"):
            shapes |= linear(f"{attention}.k_pose", width, width) | linear(f"{attention}.v_pose", width, width)
            shapes |= {f"{attention}.norm_k_pose.weight": (width,), f"{attention}.pose_gate": (1,)}
    return shapes
