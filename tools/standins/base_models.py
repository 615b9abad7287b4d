"""Key lists of Stable Diffusion 1.5 checkpoints, by formula: UNet, a tiny autoencoder (TAESD), CLIP-L text encoder."""

from __future__ import annotations

from collections.abc import Sequence

from likeness_pack.adapters.unet_shapes import unet_shapes

from .blocks import conv, linear, norm
from .fill import Shapes

CONTEXT = 768


def unet(levels: Sequence[int]) -> Shapes:
    """A UNet with SD1.5's layout and the given width of each of its four levels."""
    return unet_shapes(levels, 4, CONTEXT, convolved=True)


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
