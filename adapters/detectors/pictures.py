"""How every detector takes pictures in: chunks of bounded size, 0..255 values, one limit on the longer side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

PIXELS_AT_ONCE = 8_000_000


def chunks(images: Tensor, pixels_at_once: int = PIXELS_AT_ONCE) -> Iterator[Tensor]:
    """Split (B, H, W, C) pictures along B so that a chunk has at most ``pixels_at_once`` pixels, or one picture."""
    pixels = max(1, images.shape[1] * images.shape[2])
    return iter(images.split(max(1, pixels_at_once // pixels))) if images.shape[0] else iter(())


def pixel_values(images: Tensor, device: torch.device) -> Tensor:
    """(B, H, W, 3) 0..1 -> (B, 3, H, W) float32 whole numbers 0..255: detectors are made for 8-bit pictures."""
    return (images.to(device, torch.float32) * 255).round_().clamp_(0, 255).permute(0, 3, 1, 2).contiguous()


def shrunk(pixels: Tensor, longest: int) -> tuple[Tensor, float, float]:
    """Shrink (B, C, H, W) pictures whose longer side exceeds ``longest``, by area averaging and back to whole numbers.

    Returns:
        The pictures, and the factors by which x and y found in them are multiplied to get original pixels.
    """
    height, width = pixels.shape[2:]
    factor = longest / max(height, width, 1)
    if factor >= 1:
        return pixels, 1.0, 1.0
    small_height, small_width = max(1, round(height * factor)), max(1, round(width * factor))
    small = functional.interpolate(pixels, size=(small_height, small_width), mode="area").round_()
    return small, width / small_width, height / small_height


def home(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a network's weights at this moment; its owner may have moved it since the last call."""
    parameter = next(network.parameters())
    return parameter.device, parameter.dtype
