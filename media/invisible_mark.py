"""An invisible mark in pictures, by the package invisible-watermark (MIT): frequency domain, survives mild JPEG.

It says only that a picture was made with this pack. It is a courtesy to readers, no protection: cropping, scaling or a
few strokes of a brush take it away.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from ..faces.errors import LikenessError

TEXT = b"Likeness"
METHOD = "dwtDctSvd"
LEAST_SIDE = 256


class MarkFailed(LikenessError):
    """The mark cannot be written or looked for."""


def mark_picture(picture: Tensor) -> Tensor:
    """Return a picture (H, W, 3), 0..1, with the mark; each value is rounded to 1/255.

    Raises:
        MarkFailed: a side under 256 pixels, or the package is missing.
    """
    _check(picture)
    encoder = _package().WatermarkEncoder()
    encoder.set_watermark("bytes", TEXT)
    marked = encoder.encode(_blue_first(picture), METHOD)
    return torch.from_numpy(marked[..., ::-1].copy()).float() / 255


def is_marked(picture: Tensor) -> bool:
    """Whether a picture (H, W, 3), 0..1, carries the mark.

    Raises:
        MarkFailed: a side under 256 pixels, or the package is missing.
    """
    _check(picture)
    decoder = _package().WatermarkDecoder("bytes", 8 * len(TEXT))
    return bytes(decoder.decode(_blue_first(picture), METHOD)) == TEXT


def _blue_first(picture: Tensor) -> Any:
    values = (picture.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return values.numpy()[..., ::-1].copy()


def _check(picture: Tensor) -> None:
    height, width = picture.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise MarkFailed(
            "invisible mark",
            expected=f"pictures of {LEAST_SIDE} x {LEAST_SIDE} pixels or more",
            found=f"{width} x {height}",
            cure="turn the mark off or save a larger picture",
        )


def _package() -> Any:
    try:
        import imwatermark
    except ImportError as error:
        raise MarkFailed(
            "invisible mark",
            expected="the package invisible-watermark",
            found=str(error),
            cure=f'install it with "{sys.executable}" -m pip install --no-deps invisible-watermark PyWavelets '
            "opencv-python-headless, or turn the mark off",
        ) from error
    return imwatermark
