"""Pictures in files, upright and RGB, for commands that have no host to load them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .errors import BadPicture


def read_picture(path: Path) -> Tensor:
    """Return a picture (1, H, W, 3), 0..1, turned as its camera says; alpha is flattened over black.

    Raises:
        BadPicture: no file, or no picture.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            pixels = np.asarray(upright.convert("RGBA"), dtype=np.float32) / 255
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as cause:
        found = "no such file" if not path.exists() else f"a file that is none ({type(cause).__name__})"
        raise BadPicture(path.name, expected="a picture", found=found, cure="choose a PNG, JPEG or WebP") from cause
    return torch.from_numpy(pixels[..., :3] * pixels[..., 3:])[None]
