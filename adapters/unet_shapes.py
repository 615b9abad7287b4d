"""Names and shapes of the UNets of Stable Diffusion under their original names, by formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Shapes = dict[str, tuple[int, ...]]

LEVELS = 4


def unet_shapes(
    levels: Sequence[int], inputs: int, context: int, outputs: int = 4, *, convolved: bool = False
) -> Shapes:
    """Every tensor of a UNet.

    Args:
        levels: channels of its four levels; officially 320, 640, 1280, 1280.
        inputs, outputs: channels of what goes in and comes out.
        context: width of the text context; officially 768 in Stable Diffusion 1.5 and 1024 in 2.1.
        convolved: whether the layers around a transformer are convolutions, as in 1.5, or linear, as in 2.1.
    """
    around = (1, 1) if convolved else ()
    time = 4 * levels[0]
    shapes = {**_layer("time_embed.0", time, levels[0]), **_layer("time_embed.2", time, time)}
    shapes |= _layer("input_blocks.0.0", levels[0], inputs, 3, 3)
    skips, width, number = [levels[0]], levels[0], 1
    for level, out in enumerate(levels):
        for _ in range(2):
            shapes |= residual_shapes(f"input_blocks.{number}.0", width, out, time)
            shapes |= _transformer(f"input_blocks.{number}.1", out, context, around) if level < LEVELS - 1 else {}
            width, number = out, number + 1
            skips.append(width)
        if level < LEVELS - 1:
            shapes |= _layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            number += 1
            skips.append(width)
    shapes |= residual_shapes("middle_block.0", width, width, time)
    shapes |= _transformer("middle_block.1", width, context, around)
    shapes |= residual_shapes("middle_block.2", width, width, time)
    shapes |= dict(_up(levels, skips, time, context, around))
    return shapes | _norm("out.0", levels[0]) | _layer("out.2", outputs, levels[0], 3, 3)


def _up(
    levels: Sequence[int], skips: list[int], time: int, context: int, around: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = levels[-1]
    for number in range(3 * LEVELS):
        level, name = LEVELS - 1 - number // 3, f"output_blocks.{number}"
        yield from residual_shapes(f"{name}.0", width + skips.pop(), levels[level], time).items()
        width = levels[level]
        attends = level < LEVELS - 1
        if attends:
            yield from _transformer(f"{name}.1", width, context, around).items()
        if level and number % 3 == 2:
            yield from _layer(f"{name}.{1 + attends}.conv", width, width, 3, 3).items()


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, width: int) -> Shapes:
    return _layer(name, width)


def residual_shapes(name: str, inputs: int, outputs: int, time: int) -> Shapes:
    """A residual block; ``time`` is the width of what it is told of the timestep."""
    shapes = _norm(f"{name}.in_layers.0", inputs) | _layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    shapes |= _layer(f"{name}.emb_layers.1", outputs, time)
    shapes |= _norm(f"{name}.out_layers.0", outputs) | _layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    return shapes if inputs == outputs else shapes | _layer(f"{name}.skip_connection", outputs, inputs, 1, 1)


def _transformer(name: str, width: int, context: int, around: tuple[int, ...]) -> Shapes:
    shapes = _norm(f"{name}.norm", width) | _layer(f"{name}.proj_in", width, width, *around)
    inner = f"{name}.transformer_blocks.0"
    for attention, keys in (("attn1", width), ("attn2", context)):
        ends = {"to_q": width, "to_k": keys, "to_v": keys}
        shapes |= {f"{inner}.{attention}.{end}.weight": (width, inputs) for end, inputs in ends.items()}
        shapes |= _layer(f"{inner}.{attention}.to_out.0", width, width)
    shapes |= _layer(f"{inner}.ff.net.0.proj", 8 * width, width) | _layer(f"{inner}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        shapes |= _norm(f"{inner}.norm{number}", width)
    return shapes | _layer(f"{name}.proj_out", width, width, *around)
