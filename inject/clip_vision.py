"""Hidden states of the host's CLIP_VISION for face crops, with the official unconditional input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import EncoderMismatch
from .host import model_management


def image_tokens(clip_vision: Any, crops: Tensor) -> tuple[Tensor, Tensor]:
    """Encode face crops with the host's image encoder.

    Args:
        clip_vision: the host's CLIP_VISION value; for FaceID-Plus it must be ViT-H/14.
        crops: (N, 3, S, S) RGB 0..1.

    Returns:
        hidden states before the last layer (N, T, C), and those of a picture that is zero after normalisation (1, T,
        C): the official unconditional input, which is mean grey and not black.

    Raises:
        EncoderMismatch: when the value is no CLIP vision model of the usual kind.
    """
    hidden = clip_vision.encode_image(crops.movedim(1, -1))["penultimate_hidden_states"]
    if hidden.dim() != 3:
        raise EncoderMismatch(
            "encode identity",
            expected="a CLIP vision model with hidden states (N, tokens, width)",
            found=f"an output of shape {tuple(hidden.shape)}",
            cure="load CLIP-ViT-H-14-laion2B-s32B-b79K with the host's CLIP vision loader",
        )
    return hidden.float().cpu(), _zero_tokens(clip_vision)


def _zero_tokens(clip_vision: Any) -> Tensor:
    size = int(getattr(clip_vision, "image_size", 224))
    model_management().load_models_gpu([clip_vision.patcher])
    zeros = torch.zeros(1, 3, size, size, device=clip_vision.load_device)
    out = clip_vision.model(pixel_values=zeros, intermediate_output=-2)
    return out[1].float().cpu()
