"""Key lists of Stable Diffusion 1.5 checkpoints, by formula: UNet, a tiny autoencoder (TAESD), CLIP-L text encoder."""

from __future__ import annotations

from collections.abc import Sequence

from .blocks import conv, linear, norm
from .fill import Shapes

CONTEXT = 768
BLOCKS_PER_LEVEL = 2


def _residual(name: str, inputs: int, outputs: int, embedding: int) -> Shapes:
    shapes = norm(f"{name}.in_layers.0", inputs) | conv(f"{name}.in_layers.2", inputs, outputs, 3)
    shapes |= linear(f"{name}.emb_layers.1", embedding, outputs)
    shapes |= norm(f"{name}.out_layers.0", outputs) | conv(f"{name}.out_layers.3", outputs, outputs, 3)
    return shapes if inputs == outputs else shapes | conv(f"{name}.skip_connection", inputs, outputs, 1)


def _attention(name: str, width: int, context: int) -> Shapes:
    shapes = linear(f"{name}.to_q", width, width, bias=False) | linear(f"{name}.to_k", context, width, bias=False)
    return shapes | linear(f"{name}.to_v", context, width, bias=False) | linear(f"{name}.to_out.0", width, width)


def _transformer(name: str, width: int) -> Shapes:
    shapes = norm(f"{name}.norm", width) | conv(f"{name}.proj_in", width, width, 1)
    block = f"{name}.transformer_blocks.0"
    shapes |= _attention(f"{block}.attn1", width, width) | _attention(f"{block}.attn2", width, CONTEXT)
    shapes |= linear(f"{block}.ff.net.0.proj", width, 8 * width) | linear(f"{block}.ff.net.2", 4 * width, width)
    for number in (1, 2, 3):
        shapes |= norm(f"{block}.norm{number}", width)
    return shapes | conv(f"{name}.proj_out", width, width, 1)


def _down(levels: Sequence[int], embedding: int) -> tuple[Shapes, list[int]]:
    shapes = conv("input_blocks.0.0", 4, levels[0], 3)
    skips, width, number = [levels[0]], levels[0], 1
    for level, outputs in enumerate(levels):
        for _ in range(BLOCKS_PER_LEVEL):
            shapes |= _residual(f"input_blocks.{number}.0", width, outputs, embedding)
            if level < 3:
                shapes |= _transformer(f"input_blocks.{number}.1", outputs)
            width, number = outputs, number + 1
            skips.append(width)
        if level < len(levels) - 1:
            shapes |= conv(f"input_blocks.{number}.0.op", width, width, 3)
            number += 1
            skips.append(width)
    return shapes, skips


def _up(levels: Sequence[int], skips: list[int], embedding: int) -> Shapes:
    shapes: Shapes = {}
    width, number = levels[-1], 0
    for level in reversed(range(len(levels))):
        for index in range(BLOCKS_PER_LEVEL + 1):
            name = f"output_blocks.{number}"
            shapes |= _residual(f"{name}.0", width + skips.pop(), levels[level], embedding)
            width, number = levels[level], number + 1
            if level < 3:
                shapes |= _transformer(f"{name}.1", width)
            if level and index == BLOCKS_PER_LEVEL:
                shapes |= conv(f"{name}.{2 if level < 3 else 1}.conv", width, width, 3)
    return shapes


def unet(levels: Sequence[int]) -> Shapes:
    """A UNet with SD1.5's layout and the given width of each of its four levels."""
    embedding = 4 * levels[0]
    shapes = linear("time_embed.0", levels[0], embedding) | linear("time_embed.2", embedding, embedding)
    down, skips = _down(levels, embedding)
    middle = _residual("middle_block.0", levels[-1], levels[-1], embedding)
    middle |= _transformer("middle_block.1", levels[-1])
    middle |= _residual("middle_block.2", levels[-1], levels[-1], embedding)
    return (
        shapes
        | down
        | middle
        | _up(levels, skips, embedding)
        | norm("out.0", levels[0])
        | conv("out.2", levels[0], 4, 3)
    )


def taesd() -> Shapes:
    """The tiny autoencoder TAESD: encoder and decoder of 64 channels with a residual block at each listed position."""
    shapes: Shapes = {"vae_scale": ()}
    encoder, decoder = "taesd_encoder", "taesd_decoder"
    plain = {f"{encoder}.0": (3, 64), f"{encoder}.14": (64, 4), f"{decoder}.1": (4, 64), f"{decoder}.19": (64, 3)}
    for name, (inputs, outputs) in plain.items():
        shapes |= conv(name, inputs, outputs, 3)
    for name in (f"{encoder}.2", f"{encoder}.6", f"{encoder}.10", f"{decoder}.7", f"{decoder}.12", f"{decoder}.17"):
        shapes |= conv(name, 64, 64, 3, bias=False)
    blocks = [f"{encoder}.{n}" for n in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)]
    blocks += [f"{decoder}.{n}" for n in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18)]
    for name in blocks:
        for part in (0, 2, 4):
            shapes |= conv(f"{name}.conv.{part}", 64, 64, 3)
    return shapes


def clip_l() -> Shapes:
    """The CLIP-L text encoder."""
    width, length, vocabulary = 768, 77, 49408
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (vocabulary, width),
        "embeddings.position_embedding.weight": (length, width),
    }
    for index in range(12):
        name = f"encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", width, width)
        shapes |= norm(f"{name}.layer_norm1", width) | norm(f"{name}.layer_norm2", width)
        shapes |= linear(f"{name}.mlp.fc1", width, 3072) | linear(f"{name}.mlp.fc2", 3072, width)
    return shapes | norm("final_layer_norm", width)


def sd15(levels: Sequence[int]) -> Shapes:
    """A whole SD1.5 checkpoint file."""
    parts = {
        "model.diffusion_model.": unet(levels),
        "first_stage_model.": taesd(),
        "cond_stage_model.transformer.text_model.": clip_l(),
    }
    return {prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()}
