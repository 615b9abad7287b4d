"""Texts inside files: the text chunks of a PNG and the tags of MP4, MOV, MKV and WebM."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from .errors import BadPicture

CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
READABLE = (".png", *CLIPS)
_FAST = 4


def read_texts(path: Path) -> Mapping[str, str]:
    """The texts of a file; names of a clip's tags are in lower case.

    Raises:
        BadPicture: no picture.
        BadClip: no clip.
    """
    if path.suffix.lower() in CLIPS:
        from .facts import read_facts

        return {name.lower(): value for name, value in read_facts(path).metadata.items()}
    return _picture_texts(path)


def write_png(path: Path, picture: Tensor, texts: Mapping[str, str]) -> None:
    """Write a picture (H, W, 3), 0..1, with texts."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for name, value in texts.items():
        chunks.add_text(name, value)
    values = np.asarray((picture.cpu() * 255).round().clamp(0, 255), dtype=np.uint8)
    Image.fromarray(values).save(path, pnginfo=chunks, compress_level=_FAST)


def _picture_texts(path: Path) -> Mapping[str, str]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            # Some programs write texts behind the pixels, where they are found once these are read.
            with suppress(OSError, ValueError, SyntaxError):
                picture.load()
            return {str(name): value for name, value in picture.info.items() if isinstance(value, str)}
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as cause:
        found = "no such file" if not path.exists() else f"a file that is no picture ({type(cause).__name__})"
        raise BadPicture(path.name, expected="a PNG", found=found, cure="choose a picture or a clip") from cause
