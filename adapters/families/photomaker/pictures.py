"""Photos as CLIP's image processor prepares them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# OpenAI's statistics (Radford et al. 2021; CLIPImageProcessor).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: Tensor, size: int) -> Tensor:
    """Whole photos (N, H, W, 3), 0..1, to pixels (N, 3, size, size): short side by antialiased bicubic, centre crop,
    8 bits, OpenAI's statistics.
    """
    planes = images.float().movedim(-1, 1)
    height, width = planes.shape[-2:]
    short = min(height, width)
    scaled = (max(size, size * height // short), max(size, size * width // short))
    if scaled != (height, width):
        planes = interpolate(planes, size=scaled, mode="bicubic", antialias=True, align_corners=False)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    planes = planes[..., top : top + size, left : left + size]
    planes = (planes * 255).round().clamp(0, 255) / 255
    mean, std = (torch.tensor(values, device=planes.device).view(3, 1, 1) for values in (MEAN, STD))
    return (planes - mean) / std
