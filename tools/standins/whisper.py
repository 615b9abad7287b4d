"""Key lists of Whisper's audio encoder, by formula: Hugging Face's layout and openai's."""

from __future__ import annotations

from .blocks import linear, norm
from .fill import Shapes

TINY_WIDTH, TINY_LAYERS = 384, 4
_BANDS, _POSITIONS, _MLP = 80, 1500, 4


def whisper(width: int = TINY_WIDTH, layers: int = TINY_LAYERS) -> Shapes:
    """Hugging Face's layout, as ``model.safetensors`` of openai/whisper-tiny has it, without the decoder.

    Args:
        width: a multiple of 64.
        layers: the systems take 4.
    """
    shapes = _convolutions("model.encoder.", width) | {"model.encoder.embed_positions.weight": (_POSITIONS, width)}
    for number in range(layers):
        name = f"model.encoder.layers.{number}"
        for part in ("q_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{name}.self_attn.{part}", width, width)
        shapes |= linear(f"{name}.self_attn.k_proj", width, width, bias=False)
        shapes |= norm(f"{name}.self_attn_layer_norm", width) | norm(f"{name}.final_layer_norm", width)
        shapes |= linear(f"{name}.fc1", width, _MLP * width) | linear(f"{name}.fc2", _MLP * width, width)
    return shapes | norm("model.encoder.layer_norm", width)


def whisper_openai(width: int = TINY_WIDTH, layers: int = TINY_LAYERS) -> Shapes:
    """openai's own layout, as the ``model_state_dict`` of ``tiny.pt`` has it, without the decoder."""
    shapes = _convolutions("encoder.", width) | {"encoder.positional_embedding": (_POSITIONS, width)}
    for number in range(layers):
        name = f"encoder.blocks.{number}"
        for part in ("query", "value", "out"):
            shapes |= linear(f"{name}.attn.{part}", width, width)
        shapes |= linear(f"{name}.attn.key", width, width, bias=False)
        shapes |= norm(f"{name}.attn_ln", width) | norm(f"{name}.mlp_ln", width)
        shapes |= linear(f"{name}.mlp.0", width, _MLP * width) | linear(f"{name}.mlp.2", _MLP * width, width)
    return shapes | norm("encoder.ln_post", width)


def _convolutions(prefix: str, width: int) -> Shapes:
    kernels: Shapes = {f"{prefix}conv1.weight": (width, _BANDS, 3), f"{prefix}conv2.weight": (width, width, 3)}
    return kernels | {f"{prefix}conv1.bias": (width,), f"{prefix}conv2.bias": (width,)}
