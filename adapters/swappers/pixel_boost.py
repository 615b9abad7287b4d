"""Pixel boost: a crop k times the network's size as k x k interleaved pictures of its size (facefusion).

Part ``row * k + column`` holds every k-th pixel from that row and column on. Each part shows the whole face, so the
network sees what it was trained on, and the parts together keep k times the detail.
"""

from __future__ import annotations

from torch import Tensor


def split_pixels(crops: Tensor, factor: int) -> Tensor:
    """Return the parts (N * k * k, C, S, S) of crops (N, C, k * S, k * S); the parts of a crop stand together."""
    count, channels, height, width = crops.shape
    parts = crops.reshape(count, channels, height // factor, factor, width // factor, factor)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(-1, channels, height // factor, width // factor)


def join_pixels(parts: Tensor, factor: int) -> Tensor:
    """Return the crops (N, C, k * S, k * S) of parts (N * k * k, C, S, S); the inverse of `split_pixels`."""
    _, channels, height, width = parts.shape
    crops = parts.reshape(-1, factor, factor, channels, height, width).permute(0, 3, 4, 1, 5, 2)
    return crops.reshape(-1, channels, height * factor, width * factor)
