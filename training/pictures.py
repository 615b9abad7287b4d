"""Pictures to train on: those of a folder, or those in memory, all cut to one size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..faces.errors import BadImage
from ..faces.images import as_rgb

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
REASONS_TOLD = 3
_CACHE_BYTES = 1 << 29


class Pictures(Protocol):
    """Clean pictures (3, S, S) float32 in 0..1, by number.

    Attributes:
        size: their side S.
        digest: tells them from others.
    """

    size: int
    digest: str

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What the picture is called."""

    def picture(self, number: int) -> Tensor:
        """The picture."""


class PictureBatch:
    """Pictures in memory: each is cut to its middle square and resized.

    Args:
        images: (N, H, W, C) in 0..1, as the host's IMAGE.
        size: side of the training pictures, a multiple of 8.

    Raises:
        BadImage: no picture, or pictures smaller than ``size``.
    """

    def __init__(self, images: Tensor, size: int) -> None:
        images = as_rgb(images, "training pictures").detach().cpu().movedim(-1, 1)
        side = min(images.shape[-2:])
        if side < size:
            raise _too_small(f"training pictures of {images.shape[-1]}x{images.shape[-2]}", size)
        top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
        square = images[..., top : top + side, left : left + side]
        small = functional.interpolate(square, (size, size), mode="bicubic", align_corners=False, antialias=True)
        self.size = size
        self._pixels = small.clamp(0, 1).clone()
        values = (self._pixels * 255).round().to(torch.uint8)
        self.digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self._pixels)

    def told(self) -> str:
        """A line for reports."""
        return f"{len(self)} pictures"

    def name(self, number: int) -> str:
        """``picture 0`` and so on."""
        return f"picture {number}"

    def picture(self, number: int) -> Tensor:
        """(3, S, S)."""
        return self._pixels[number]


class PictureFolder:
    """The pictures of a folder and its sub-folders, sorted by path, read when asked and kept up to 512 MB.

    Each is turned as its EXIF says, cut to its middle square and resized (Lanczos). Smaller ones are left out: a
    picture that must be enlarged is no example of a sharp one.

    Args:
        folder: where they are.
        size: side of the training pictures, a multiple of 8.

    Attributes:
        left_out: files that are smaller than ``size`` or cannot be read, with the reason.
        digest: see `files_digest`.

    Raises:
        BadImage: not a single usable picture.
    """

    def __init__(self, folder: Path, size: int) -> None:
        files = picture_files(folder) if folder.is_dir() else []
        reasons = {path: _reason(path, size) for path in files}
        self.size = size
        self.files = tuple(path for path in files if not reasons[path])
        self.left_out = {path: reason for path, reason in reasons.items() if reason}
        self.digest = files_digest(folder, self.files, size)
        self._kept: dict[int, Tensor] = {}
        if not self.files:
            told = "; ".join(f"{path.name}: {reason}" for path, reason in list(self.left_out.items())[:3])
            raise BadImage(
                f"folder {folder.name}",
                expected=f"pictures ({' '.join(sorted(SUFFIXES))}) of {size} pixels or more",
                found=told or ("no picture" if folder.is_dir() else "no such folder"),
                cure="put photographs into the folder, or lower the size",
            )

    def __len__(self) -> int:
        return len(self.files)

    def told(self) -> str:
        """A line for reports."""
        left_out = f"; left out: {reasons_told(self.left_out)}" if self.left_out else ""
        return f"{len(self)} pictures{left_out}"

    def name(self, number: int) -> str:
        """The file's name."""
        return self.files[number].name

    def picture(self, number: int) -> Tensor:
        """(3, S, S)."""
        if number not in self._kept:
            pixels = _read(self.files[number], self.size)
            if (len(self._kept) + 1) * pixels.numel() > _CACHE_BYTES:
                return pixels.float() / 255
            self._kept[number] = pixels
        return self._kept[number].float() / 255


def picture_files(folder: Path) -> list[Path]:
    """Pictures of a folder and its sub-folders, sorted; hidden ones, such as thumbnails, do not count."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))


def files_digest(folder: Path, files: Iterable[Path], size: int) -> str:
    """Names and bytes of files, and the side ``size`` they are cut to, in a short hash: a run that goes on asks whether
    its pictures are still the same."""
    told = [size, *((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def reasons_told(left_out: Mapping[Path, str]) -> str:
    """The first files that cannot be used, with the reason, and how many more there are."""
    told = ", ".join(f"{path.name}: {reason}" for path, reason in list(left_out.items())[:REASONS_TOLD])
    return told + (f" and {len(left_out) - REASONS_TOLD} more" if len(left_out) > REASONS_TOLD else "")


def stacked(pictures: Pictures, numbers: Sequence[int]) -> Tensor:
    """Some of the pictures as (B, 3, S, S)."""
    return torch.stack([pictures.picture(number) for number in numbers])


def _reason(path: Path, size: int) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        return f"cannot be read ({type(error).__name__})"
    return f"{width}x{height} pixels" if min(width, height) < size else ""


def _read(path: Path, size: int) -> Tensor:
    """(3, size, size) uint8. Raises BadImage for a damaged file."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    except (OSError, ValueError) as error:
        found = f"damaged data ({str(error)[:80]})"
        raise BadImage(path.name, expected="a picture", found=found, cure="remove this file from the folder") from error
    return pixels.view(size, size, 3).movedim(-1, 0).contiguous()


def _too_small(what: str, size: int) -> BadImage:
    return BadImage(
        what, expected=f"{size} pixels or more on the short side", found="fewer", cure="give larger ones, or lower size"
    )
