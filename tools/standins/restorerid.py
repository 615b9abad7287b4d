"""Key lists of RestorerID's checkpoint and of MUSIQ, by formula."""

from __future__ import annotations

from collections.abc import Sequence

from likeness_pack.adapters.unet_shapes import residual_shapes

from .adapters import LORA_RANK, SD15_LEVELS, faceid
from .base_models import sd15
from .blocks import conv, linear, norm
from .fill import Shapes

UNET = "model.diffusion_model."
CONTEXT = 768
LABELS = 256
HIDDEN = 128


def residual_widths(levels: Sequence[int] = SD15_LEVELS) -> dict[str, int]:
    """Width of the 22 residual blocks of a UNet with SD1.5's layout."""
    down = {f"input_blocks.{3 * level + n}.0": levels[level] for level in range(4) for n in (1, 2)}
    middle = {f"middle_block.{n}": levels[3] for n in (0, 2)}
    up = {f"output_blocks.{3 * level + n}.0": levels[3 - level] for level in range(4) for n in range(3)}
    return down | middle | up


def attention_widths(levels: Sequence[int] = SD15_LEVELS) -> dict[str, int]:
    """Width of the 16 transformer blocks."""
    down = {f"input_blocks.{3 * level + n}.1": levels[level] for level in range(3) for n in (1, 2)}
    up = {f"output_blocks.{3 * level + n}.1": levels[3 - level] for level in range(1, 4) for n in range(3)}
    return down | up | {"middle_block.1": levels[3]}


def _modulation(name: str, width: int, labels: int, hidden: int) -> Shapes:
    shapes = norm(f"{name}.param_free_norm", width) | conv(f"{name}.mlp_shared.0", labels, hidden, 3)
    return shapes | conv(f"{name}.mlp_gamma", hidden, width, 3) | conv(f"{name}.mlp_beta", hidden, width, 3)


def _fir(name: str, width: int, labels: int, hidden: int) -> Shapes:
    shapes = _modulation(name, width, labels, hidden) | norm(f"{name}.norm", labels)
    shapes |= linear(f"{name}.crossattn.to_q", labels, labels, bias=False)
    shapes |= linear(f"{name}.crossattn.to_k", CONTEXT, labels, bias=False)
    shapes |= linear(f"{name}.crossattn.to_v", CONTEXT, labels, bias=False)
    return shapes | linear(f"{name}.crossattn.to_out.0", labels, labels)


def _attention(name: str, width: int, rank: int, crosses: bool) -> Shapes:
    shapes: Shapes = {}
    for end in ("to_q", "to_k", "to_v", "to_out"):
        inputs = CONTEXT if crosses and end in ("to_k", "to_v") else width
        shapes |= linear(f"{name}.{end}_lora.down", inputs, rank, bias=False)
        shapes |= linear(f"{name}.{end}_lora.up", rank, width, bias=False)
    for end in ("to_k_ip", "to_v_ip") if crosses else ():
        shapes |= linear(f"{name}.{end}", CONTEXT, width, bias=False)
    return shapes


def unet_additions(
    levels: Sequence[int] = SD15_LEVELS, rank: int = LORA_RANK, labels: int = LABELS, hidden: int = HIDDEN
) -> Shapes:
    """What RestorerID adds to the UNet, names relative to it."""
    shapes: Shapes = {}
    for name, width in residual_widths(levels).items():
        shapes |= _modulation(f"{name}.spade", width, labels, hidden)
        shapes |= _fir(f"{name}.IDBalance", width, labels, hidden)
    for name, width in attention_widths(levels).items():
        block = f"{name}.transformer_blocks.0"
        shapes |= _attention(f"{block}.attn1", width, rank, False) | _attention(f"{block}.attn2", width, rank, True)
    return shapes


def _self_attention(name: str, width: int) -> Shapes:
    qkv: Shapes = {f"{name}.qkv.weight": (3 * width, width, 1), f"{name}.qkv.bias": (3 * width,)}
    out: Shapes = {f"{name}.proj_out.weight": (width, width, 1), f"{name}.proj_out.bias": (width,)}
    return norm(f"{name}.norm", width) | qkv | out


def structure_encoder(channels: int = 256, labels: int = LABELS) -> Shapes:
    """The structure encoder, names relative to it."""
    embedding, widths = 4 * channels, [channels, channels, 2 * channels, 2 * channels]
    shapes = linear("time_embed.0", channels, embedding) | linear("time_embed.2", embedding, embedding)
    shapes |= conv("input_blocks.0.0", 4, channels, 3)
    width, number = channels, 1
    for level, outputs in enumerate(widths):
        for _ in range(2):
            shapes |= residual_shapes(f"input_blocks.{number}.0", width, outputs, embedding)
            if level < 3:
                shapes |= _self_attention(f"input_blocks.{number}.1", outputs)
            width, number = outputs, number + 1
        if level < 3:
            shapes |= conv(f"input_blocks.{number}.0.op", width, width, 3)
            number += 1
    shapes |= residual_shapes("middle_block.0", width, width, embedding) | _self_attention("middle_block.1", width)
    shapes |= residual_shapes("middle_block.2", width, width, embedding)
    for level, outputs in enumerate(widths):
        shapes |= residual_shapes(f"fea_tran.{level}", outputs, labels, embedding)
    return shapes


def restorerid_slim(levels: Sequence[int] = SD15_LEVELS) -> Shapes:
    """The slim adapter file: what lies on top of any SD1.5 model."""
    projection = {name.removeprefix("image_proj."): shape for name, shape in faceid("sd15", plus=True).items()}
    parts = {
        UNET: unet_additions(levels),
        "structcond_stage_model.": structure_encoder(),
        "Adapter.image_proj_model.": {
            name: shape for name, shape in projection.items() if not name.startswith("ip_adapter.")
        },
    }
    return {prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()}


def restorerid_full(levels: Sequence[int] = SD15_LEVELS) -> Shapes:
    """The official checkpoint, with its SD1.5 inside."""
    return sd15(levels) | restorerid_slim(levels)


def musiq() -> Shapes:
    """MUSIQ with its koniq10k head."""
    width = 384
    shapes: Shapes = {"conv_root.weight": (64, 3, 7, 7)} | norm("gn_root", 64)
    for name, inputs, outputs, side in (("1", 64, 64, 1), ("2", 64, 64, 3), ("3", 64, 256, 1), ("_proj", 64, 256, 1)):
        shapes |= conv(f"block1.conv{name}", inputs, outputs, side, bias=False) | norm(f"block1.gn{name}", outputs)
    shapes |= linear("embedding", 16384, width)
    encoder = "transformer_encoder"
    shapes[f"{encoder}.cls"] = (1, 1, width)
    shapes[f"{encoder}.posembed_input.position_emb"] = (1, 100, width)
    shapes[f"{encoder}.scaleembed_input.scale_emb"] = (3, width)
    shapes |= norm(f"{encoder}.encoder_norm", width)
    for layer in range(14):
        name = f"{encoder}.transformer.encoderblock_{layer}"
        shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
        for end in ("query", "key", "value", "out"):
            shapes |= linear(f"{name}.attention.{end}", width, width)
        shapes |= linear(f"{name}.mlp.fc1", width, 1152) | linear(f"{name}.mlp.fc2", 1152, width)
    return shapes | linear("head", width, 1)
