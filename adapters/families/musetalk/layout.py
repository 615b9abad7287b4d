"""Names and shapes of MuseTalk's UNet files, by formula: diffusers' ``UNet2DConditionModel``, no prefix.

Facts: the published ``musetalk.json`` and files (TMElyralab/MuseTalk). Versions 1 and 1.5 have the same tensors; they
differ in their weights, in the audio features they were trained with and in how the face is pasted.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...checkpoint import CheckpointHeader
from ...strict_load import group_by_prefix

Shapes = dict[str, tuple[int, ...]]

CONTEXT = 384
HEADS = 8
IN_CHANNELS = 8
OUT_CHANNELS = 4
LEVELS = 4
BLOCKS = 2
PUBLISHED_WIDTHS = (320, 640, 1280, 1280)
# A file of another UNet misses or adds more of the names than a damaged one does.
_KIN = 0.5


def _affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _residual(name: str, inputs: int, outputs: int, embedding: int) -> Shapes:
    shapes = _affine(f"{name}.norm1", inputs) | _affine(f"{name}.conv1", outputs, inputs, 3, 3)
    shapes |= _affine(f"{name}.time_emb_proj", outputs, embedding)
    shapes |= _affine(f"{name}.norm2", outputs) | _affine(f"{name}.conv2", outputs, outputs, 3, 3)
    return shapes if inputs == outputs else shapes | _affine(f"{name}.conv_shortcut", outputs, inputs, 1, 1)


def _transformer(name: str, width: int) -> Shapes:
    shapes = _affine(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        shapes |= _affine(f"{name}.{end}", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", CONTEXT)):
        shapes |= {f"{block}.{attention}.to_q.weight": (width, width)}
        shapes |= {f"{block}.{attention}.{end}.weight": (width, context) for end in ("to_k", "to_v")}
        shapes |= _affine(f"{block}.{attention}.to_out.0", width, width)
    for number in (1, 2, 3):
        shapes |= _affine(f"{block}.norm{number}", width)
    return shapes | _affine(f"{block}.ff.net.0.proj", 8 * width, width) | _affine(f"{block}.ff.net.2", width, 4 * width)


def _down(widths: Sequence[int]) -> Shapes:
    shapes: Shapes = {}
    inputs = widths[0]
    for level, width in enumerate(widths):
        name, last = f"down_blocks.{level}", level == len(widths) - 1
        for number in range(BLOCKS):
            shapes |= _residual(f"{name}.resnets.{number}", inputs, width, 4 * widths[0])
            shapes |= {} if last else _transformer(f"{name}.attentions.{number}", width)
            inputs = width
        shapes |= {} if last else _affine(f"{name}.downsamplers.0.conv", width, width, 3, 3)
    return shapes


def _up(widths: Sequence[int]) -> Shapes:
    shapes: Shapes = {}
    upwards = [*reversed(widths)]
    before = upwards[0]
    for level, width in enumerate(upwards):
        name, below = f"up_blocks.{level}", upwards[min(level + 1, len(upwards) - 1)]
        for number in range(BLOCKS + 1):
            inputs = (before if number == 0 else width) + (below if number == BLOCKS else width)
            shapes |= _residual(f"{name}.resnets.{number}", inputs, width, 4 * widths[0])
            shapes |= _transformer(f"{name}.attentions.{number}", width) if level else {}
        shapes |= _affine(f"{name}.upsamplers.0.conv", width, width, 3, 3) if level < len(upwards) - 1 else {}
        before = width
    return shapes


def unet_shapes(widths: Sequence[int] = PUBLISHED_WIDTHS) -> Shapes:
    """Every tensor of the file of a UNet whose four levels are so wide."""
    first, last = widths[0], widths[-1]
    shapes = _affine("conv_in", first, IN_CHANNELS, 3, 3)
    shapes |= _affine("time_embedding.linear_1", 4 * first, first)
    shapes |= _affine("time_embedding.linear_2", 4 * first, 4 * first)
    shapes |= _down(widths) | _transformer("mid_block.attentions.0", last)
    for number in (0, 1):
        shapes |= _residual(f"mid_block.resnets.{number}", last, last, 4 * first)
    return shapes | _up(widths) | _affine("conv_norm_out", first) | _affine("conv_out", OUT_CHANNELS, first, 3, 3)


def widths_in(header: CheckpointHeader) -> tuple[int, ...] | str:
    """The widths of the levels that a file's shapes tell, or the reason (a clause) why it is no MuseTalk file."""
    first = header.shape("conv_in.weight")
    if first is None or len(first) != 4:
        return "no conv_in.weight (MuseTalk's UNet in diffusers' names, no prefix)"
    if first[1] != IN_CHANNELS:
        return f"a UNet for {first[1]} latent channels; MuseTalk has {IN_CHANNELS}"
    found = [header.shape(f"down_blocks.{level}.resnets.0.conv1.weight") for level in range(LEVELS)]
    context = header.shape("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight")
    if context is None or None in found:
        return "a UNet of another layout"
    if context[-1] != CONTEXT:
        return f"a UNet with a context {context[-1]} wide; MuseTalk has {CONTEXT} (whisper-tiny)"
    widths = tuple(shape[0] for shape in found if shape)
    if first[0] != widths[0] or any(width % 32 for width in widths):
        return f"levels {'/'.join(map(str, widths))} wide, which no MuseTalk is"
    return _difference(header, widths) or widths


def _difference(header: CheckpointHeader, widths: Sequence[int]) -> str | None:
    expected = unet_shapes(widths)
    missing = [name for name in expected if name not in header.tensors]
    leftover = [name for name in header.tensors if name not in expected]
    wrong = [name for name, shape in expected.items() if header.shape(name) not in (None, shape)]
    if wrong:
        return f"a UNet of another layout ({group_by_prefix(wrong, 2)} of another shape)"
    if len(missing) + len(leftover) > _KIN * len(expected):
        return f"a UNet of another layout ({len(missing)} tensors of MuseTalk's missing, {len(leftover)} others)"
    # A damaged file is still MuseTalk's: strict loading tells what it lacks.
    return f"further tensors beside a UNet ({group_by_prefix(leftover, 2)})" if leftover else None
