"""Key lists of published face adapters and of the TransFace encoder, by formula."""

from __future__ import annotations

from collections.abc import Sequence

from .blocks import batch_norm, linear, norm, perceiver
from .fill import Shapes

SD15_LEVELS = (320, 640, 1280, 1280)
SDXL_LEVELS = (320, 640, 1280)
LORA_RANK = 128


def fact_blocks(levels: Sequence[int] = SD15_LEVELS) -> dict[str, int]:
    """Width of the 16 transformer blocks of a UNet with SD1.5's layout, by diffusers path: down, up, middle."""
    down = {f"down_blocks.{level}.attentions.{n}": levels[level] for level in range(3) for n in range(2)}
    up = {f"up_blocks.{level}.attentions.{n}": levels[3 - level] for level in range(1, 4) for n in range(3)}
    paths = down | up | {"mid_block.attentions.0": levels[3]}
    return {f"{path}.transformer_blocks.0": width for path, width in paths.items()}


def gated_layer(name: str, width: int, context: int = 768) -> Shapes:
    """One gated self-attention layer of FACT."""
    shapes: Shapes = {f"{name}.alpha_attn": (), f"{name}.alpha_dense": ()}
    shapes |= linear(f"{name}.linear", context, width)
    for part in ("to_q", "to_k", "to_v"):
        shapes |= linear(f"{name}.attn.{part}", width, width, bias=False)
    shapes |= linear(f"{name}.attn.to_out.0", width, width)
    shapes |= linear(f"{name}.ff.net.0.proj", width, 8 * width) | linear(f"{name}.ff.net.2", 4 * width, width)
    return shapes | norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)


def fact_resampler(name: str = "local_fac_prj.") -> Shapes:
    """The projector of FACT v1."""
    shapes: Shapes = {f"{name}latents": (1, 16, 1024)}
    shapes |= linear(f"{name}proj_in", 512, 1024) | linear(f"{name}proj_out", 1024, 768) | norm(f"{name}norm_out", 768)
    return shapes | perceiver(name, 1024, 4, 768)


def fact(levels: Sequence[int] = SD15_LEVELS, first_generation: bool = False) -> Shapes:
    """A FACT file: 16 gated layers and the projector of its generation."""
    shapes: Shapes = {}
    for path, width in fact_blocks(levels).items():
        shapes |= gated_layer(f"{path}.attn2.processor", width)
    if not first_generation:
        return shapes | fact_resampler()
    projector = linear("local_fac_prj.net", 144, 196) | linear("local_fac_prj.feature.0", 512, 768, bias=False)
    return shapes | projector | batch_norm("local_fac_prj.feature.1", 196)


def sdxl_blocks(levels: Sequence[int] = SDXL_LEVELS) -> dict[str, int]:
    """Width of the 70 transformer blocks of SDXL, by diffusers path: down, up, middle."""
    depths = {"down_blocks.1": (2, 2), "down_blocks.2": (2, 10), "up_blocks.0": (3, 10), "up_blocks.1": (3, 2)}
    levels_of = {"down_blocks.1": 1, "down_blocks.2": 2, "up_blocks.0": 2, "up_blocks.1": 1}
    blocks = {
        f"{path}.attentions.{n}.transformer_blocks.{k}": levels[levels_of[path]]
        for path, (count, depth) in depths.items()
        for n in range(count)
        for k in range(depth)
    }
    return blocks | {f"mid_block.attentions.0.transformer_blocks.{k}": levels[2] for k in range(10)}


def face_attention(widths: Sequence[int], context: int, rank: int | None) -> Shapes:
    """The ``ip_adapter`` part: LoRA on every attention (unless ``rank`` is None), face keys and values on attn2."""
    shapes: Shapes = {}
    for index, (width, cross) in enumerate((width, cross) for width in widths for cross in (False, True)):
        name = f"ip_adapter.{index}"
        for part in ("to_q", "to_k", "to_v", "to_out") if rank else ():
            inputs = context if cross and part in ("to_k", "to_v") else width
            shapes |= linear(f"{name}.{part}_lora.down", inputs, rank or 0, bias=False)
            shapes |= linear(f"{name}.{part}_lora.up", rank or 0, width, bias=False)
        if cross:
            shapes |= linear(f"{name}.to_k_ip", context, width, bias=False)
            shapes |= linear(f"{name}.to_v_ip", context, width, bias=False)
    return shapes


def faceid_projection(context: int, tokens: int = 4, plus: bool = False) -> Shapes:
    """The ``image_proj`` part of FaceID."""
    shapes = linear("image_proj.proj.0", 512, 1024) | linear("image_proj.proj.2", 1024, tokens * context)
    shapes |= norm("image_proj.norm", context)
    if plus:
        name = "image_proj.perceiver_resampler."
        shapes |= linear(f"{name}proj_in", 1280, context) | linear(f"{name}proj_out", context, context)
        shapes |= norm(f"{name}norm_out", context) | perceiver(name, context, 4, context)
    return shapes


def faceid(base: str, levels: Sequence[int] | None = None, plus: bool = False) -> Shapes:
    """A FaceID file with its LoRA, for ``"sd15"`` or ``"sdxl"``."""
    blocks = fact_blocks(levels or SD15_LEVELS) if base == "sd15" else sdxl_blocks(levels or SDXL_LEVELS)
    context = 768 if base == "sd15" else 2048
    return faceid_projection(context, plus=plus) | face_attention(list(blocks.values()), context, LORA_RANK)


def faceid_portrait(levels: Sequence[int] | None = None) -> Shapes:
    """A FaceID-Portrait file for SD1.5: 16 tokens, no LoRA."""
    widths = list(fact_blocks(levels or SD15_LEVELS).values())
    return faceid_projection(768, tokens=16) | face_attention(widths, 768, None)


def transface_s() -> Shapes:
    """The TransFace-S encoder."""
    width, tokens = 512, 144
    shapes: Shapes = {
        "pos_embed": (1, tokens, width),
        "mask_token": (1, 1, width),
        "patch_embed.proj.weight": (width, 3, 9, 9),
        "patch_embed.proj.bias": (width,),
    }
    for index in range(12):
        name = f"blocks.{index}"
        shapes |= norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width)
        shapes |= linear(f"{name}.attn.qkv", width, 3 * width, bias=False) | linear(f"{name}.attn.proj", width, width)
        shapes |= linear(f"{name}.mlp.fc1", width, 4 * width) | linear(f"{name}.mlp.fc2", 4 * width, width)
    shapes |= norm("norm", width)
    shapes |= linear("feature.0", tokens * width, width, bias=False) | batch_norm("feature.1", width)
    shapes |= linear("feature.2", width, 512, bias=False) | batch_norm("feature.3", 512)
    shapes |= linear("senet.0", tokens * width, tokens, bias=False)
    return shapes | linear("senet.2", tokens, tokens, bias=False)
