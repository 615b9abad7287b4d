"""Features of the host's CLIP_VISION for pictures, with the official unconditional input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapters.encoders.base import FaceEncoder
from ..adapters.errors import EncoderMismatch
from ..adapters.family import Licence
from ..adapters.identity import IMAGE_EMBEDS, IMAGE_TOKENS
from ..faces.boxes import scale, square
from .host import model_management, stop_if_cancelled


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
    features = picture_features(clip_vision, crops.movedim(1, -1))
    return features[IMAGE_TOKENS], zero_tokens(clip_vision)


def picture_features(clip_vision: Any, images: Tensor) -> dict[str, Tensor]:
    """Both features of pictures (N, H, W, 3), 0..1: hidden states before the last layer (N, T, C) as ``image_tokens``,
    and projected embeddings (N, E) as ``image_embeds``; float32 on the CPU.

    The host resizes the short side, and takes the middle square.

    Raises:
        EncoderMismatch: when the value is no CLIP vision model of the usual kind.
    """
    output = clip_vision.encode_image(images)
    hidden, embeds = output["penultimate_hidden_states"], output["image_embeds"]
    if hidden.dim() != 3 or embeds is None or embeds.dim() != 2:
        raise EncoderMismatch(
            "encode identity",
            expected="a CLIP vision model with hidden states (N, tokens, width) and image embeddings (N, width)",
            found=f"an output of shapes {tuple(hidden.shape)} and {None if embeds is None else tuple(embeds.shape)}",
            cure="load CLIP-ViT-H-14-laion2B-s32B-b79K with the host's CLIP vision loader",
        )
    return {IMAGE_TOKENS: hidden.float().cpu(), IMAGE_EMBEDS: embeds.float().cpu()}


def zero_tokens(clip_vision: Any) -> Tensor:
    """Hidden states (1, T, C) of a picture that is zero after normalisation."""
    size = int(getattr(clip_vision, "image_size", 224))
    model_management().load_models_gpu([clip_vision.patcher])
    zeros = torch.zeros(1, 3, size, size, device=clip_vision.load_device)
    out = clip_vision.model(pixel_values=zeros, intermediate_output=-2)
    return out[1].float().cpu()


class PictureEncoder(FaceEncoder):
    """The host's CLIP_VISION as an encoder of whole pictures or of the squares around faces.

    Features: ``image_tokens`` and ``image_embeds``; there is no face embedding.

    Args:
        clip_vision: the host's CLIP_VISION value.
        margin: border around a face's box as a part of its longer side; None encodes the whole picture.
    """

    id = "clip_vision"
    title = "CLIP vision"
    licence = Licence(code="MIT", weights="as the CLIP vision file's publisher states", commercial=None)

    def __init__(self, clip_vision: Any, margin: float | None = None) -> None:
        self.clip_vision = clip_vision
        self.margin = margin

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        """Encode the square around each box, or each box's whole picture."""
        stop_if_cancelled()
        parts = [picture_features(self.clip_vision, crop[None]) for crop in self.crops(images, index, boxes)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def crops(self, images: Tensor, index: Sequence[int], boxes: Tensor) -> list[Tensor]:
        """The pictures (S, S, 3) that are encoded, each in its own size."""
        if self.margin is None:
            return [images[number] for number in index]
        squares = scale(square(boxes), 1 + 2 * self.margin)
        return [
            _inside(images[number], box) for number, box in zip(index, squares.round().long().tolist(), strict=True)
        ]


def _inside(image: Tensor, box: Sequence[int]) -> Tensor:
    """The square of a picture (H, W, 3), moved inside and made no larger than the picture's short side."""
    height, width, _ = image.shape
    side = max(1, min(box[2] - box[0], height, width))
    left = min(max(0, (box[0] + box[2] - side) // 2), width - side)
    top = min(max(0, (box[1] + box[3] - side) // 2), height - side)
    return image[top : top + side, left : left + side]
