"""The checks every picture passes before anything reads it."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import BadImage


def as_rgb(images: Tensor, what: str = "image") -> Tensor:
    """Return pictures (B, H, W, 3) float32 of pictures (B, H, W, C), C = 1, 3 or 4, of any floating dtype.

    Grey is repeated three times. Alpha is flattened over black: red, green and blue times alpha. Values are not
    clipped; a float32 RGB batch comes back as it is, not copied.

    Raises:
        BadImage: no tensor, not four dimensions, another number of channels, no pixels, whole numbers, NaN or infinity.
    """
    _check_shape(images, what)
    if not images.is_floating_point():
        raise BadImage(
            what,
            expected="floating-point pixels from 0 to 1",
            found=str(images.dtype).removeprefix("torch."),
            cure="divide 8-bit pixels by 255 and pass them as float32",
        )
    for number, image in enumerate(images):
        if not bool(torch.isfinite(image).all()):
            raise BadImage(
                f"{what} number {number}",
                expected="finite pixels",
                found="NaN or infinity",
                cure="look at what made this picture; a VAE in half precision is the usual cause",
            )
    images = images.float()
    if images.shape[-1] == 1:
        return images.expand(-1, -1, -1, 3)
    if images.shape[-1] == 4:
        return images[..., :3] * images[..., 3:]
    return images


def _check_shape(images: Tensor, what: str) -> None:
    if not isinstance(images, Tensor):
        raise BadImage(what, expected="an IMAGE", found=type(images).__name__, cure="connect an IMAGE")
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[-1] not in (1, 3, 4):
        raise BadImage(
            what,
            expected="a batch (B, H, W, C) with 1, 3 or 4 channels",
            found=f"a tensor of shape {shape}",
            cure="connect an IMAGE",
        )
    if images.numel() == 0:
        raise BadImage(
            what,
            expected="at least one picture with pixels",
            found=f"a batch of shape {shape}",
            cure="check the node before this one: it gave an empty picture",
        )
