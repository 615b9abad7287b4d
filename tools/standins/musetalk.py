"""Key lists of MuseTalk's UNet and of UnAvgLip's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from likeness_pack.adapters.families.musetalk.layout import PUBLISHED_WIDTHS, unet_shapes
from likeness_pack.adapters.families.unavglip.layout import CONTEXT, EMBEDDING, HEAD_DIM

from .adapters import LORA_RANK, face_attention, fact_blocks
from .blocks import linear, norm, perceiver
from .fill import Shapes

DEPTH, TOKENS, HEADS = 4, 4, 20
DECODER_INNER = 2048
_ATTENTION = ("ip_adapter.", "adapter_modules.")


def musetalk(levels: Sequence[int] = PUBLISHED_WIDTHS) -> Shapes:
    """MuseTalk's UNet, v1 and v1.5 alike."""
    return unet_shapes(tuple(levels))


def unavglip(
    levels: Sequence[int] = PUBLISHED_WIDTHS, rank: int = LORA_RANK, heads: int = HEADS, decoder: bool = False
) -> Shapes:
    """A UnAvgLip checkpoint without its copy of the UNet.

    Args:
        levels: widths of the UNet's levels.
        rank: of the LoRA.
        heads: of the projection.
        decoder: the form of identity_perceiver.py instead of resampler.py's.
    """
    widths = list(fact_blocks(levels).values())
    attention = face_attention(widths, CONTEXT, rank)
    renamed = {name.replace(*_ATTENTION): shape for name, shape in attention.items()}
    return renamed | {f"image_proj_model.{name}": shape for name, shape in _projection(heads, decoder).items()}


def _projection(heads: int, decoder: bool) -> Shapes:
    shapes: Shapes = {"latents": (1, TOKENS, CONTEXT)} | linear("proj_in", EMBEDDING, CONTEXT)
    shapes |= linear("proj_out", CONTEXT, CONTEXT) | norm("norm_out", CONTEXT)
    layers = perceiver("", CONTEXT, DEPTH, heads * HEAD_DIM)
    if not decoder:
        return shapes | layers
    attention = {name: shape for name, shape in layers.items() if name.split(".")[2] == "0"}
    for layer in range(DEPTH):
        attention |= _decoder(f"layers.{layer}.1")
    return shapes | attention


def _decoder(name: str) -> Shapes:
    shapes: Shapes = {}
    for attention in ("self_attn", "multihead_attn"):
        shapes |= {f"{name}.{attention}.in_proj_weight": (3 * CONTEXT, CONTEXT)}
        shapes |= {f"{name}.{attention}.in_proj_bias": (3 * CONTEXT,)}
        shapes |= linear(f"{name}.{attention}.out_proj", CONTEXT, CONTEXT)
    shapes |= linear(f"{name}.linear1", CONTEXT, DECODER_INNER) | linear(f"{name}.linear2", DECODER_INNER, CONTEXT)
    for number in (1, 2, 3):
        shapes |= norm(f"{name}.norm{number}", CONTEXT)
    return shapes
