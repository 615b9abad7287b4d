"""Face crops of the photographs that installed packages carry for tests, and a small VAE-like pair of functions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

# Left, top and side of faces with some surroundings.
_ASTRONAUT = ((135, 20, 180),)
_GROUP = ((100, 100, 200), (300, 120, 200), (500, 150, 200), (700, 120, 200), (900, 120, 200), (1050, 200, 200))


def _pixels(package: str, *parts: str) -> Tensor:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    with Image.open(Path(spec.origin).parent.joinpath(*parts)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255


def face_crops(size: int) -> Tensor:
    """Seven crops (7, size, size, 3) in 0..1."""
    sources = [(_pixels("skimage", "data", "astronaut.png"), box) for box in _ASTRONAUT]
    group = _pixels("insightface", "data", "images", "t1.jpg")
    sources += [(group, box) for box in _GROUP]
    crops = [image[y : y + side, x : x + side].movedim(-1, 0)[None] for image, (x, y, side) in sources]
    return torch.cat([functional.interpolate(crop, (size, size), mode="area") for crop in crops]).movedim(1, -1)


class TinyVae(nn.Module):
    """Seeded convolutions with the interface of a VAE: eight times smaller, four channels of mean 0 and deviation 1.

    Args:
        pictures: (N, 3, H, W) that mean and deviation are measured on.
    """

    def __init__(self, pictures: Tensor, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        widths = (3, 16, 32, 4)
        self.down = nn.ModuleList([nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1) for i in range(3)])
        self.up = nn.ModuleList([nn.Conv2d(widths[i + 1], widths[i], 3, 1, 1) for i in (2, 1, 0)])
        with torch.no_grad():
            for layer in (*self.down, *self.up):
                fan_in = layer.weight[0].numel()
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 1.6 / fan_in**0.5)
                layer.bias.zero_()
            plain = self._encode(pictures)
            self.mean, self.deviation = plain.mean((0, 2, 3), keepdim=True), plain.std((0, 2, 3), keepdim=True)
        self.requires_grad_(False)

    def _encode(self, pictures: Tensor) -> Tensor:
        x = pictures * 2 - 1
        for layer in self.down[:-1]:
            x = functional.silu(layer(x))
        return self.down[-1](x)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to (B, 4, H/8, W/8)."""
        return (self._encode(pictures) - self.mean) / self.deviation

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, H, W) to (B, 3, 8H, 8W) in 0..1, with gradients."""
        x = latents
        for layer in self.up[:-1]:
            x = functional.silu(layer(functional.interpolate(x, scale_factor=2.0)))
        return torch.sigmoid(self.up[-1](functional.interpolate(x, scale_factor=2.0)))
