"""Photos of persons in folders, read for DreamID's triplets with this pack's detectors, encoders and swappers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..adapters.encoders.base import FaceEncoder
from ..adapters.identity import EMBEDDING, Identity
from ..adapters.parsers.base import FaceParser
from ..adapters.swappers.base import FaceSwapper
from ..adapters.swappers.pipeline import SwapOptions, swap_faces
from ..faces.crops import cut_faces
from ..faces.detect import Detector
from ..faces.swap_paste import paste_swaps
from ..faces.types import FaceBatch, Faces
from .dreamid_build import FacePhoto, GlassesEdit
from .dreamid_data import BadTriplets
from .pictures import SUFFIXES

TEMPLATE = "ffhq_512"
# Points (K, 2) of the face of a picture (1, H, W, 3), from its faces.
FindPoints = Callable[[Tensor, FaceBatch], Tensor]


@dataclass(frozen=True, eq=False)
class PhotoReader:
    """Finds, cuts out and encodes faces; itself a `dreamid_build.Look`.

    Attributes:
        detector: any detector.
        encoder: the face encoder that the model will be trained with.
        size: side of the cut-out pictures.
        points: what landmark pictures show; None takes landmarks5.
        score: least score of a face; None takes the detector's own.
    """

    detector: Detector
    encoder: FaceEncoder
    size: int = 512
    points: FindPoints | None = None
    score: float | None = None

    def __call__(self, name: str, picture: Tensor) -> FacePhoto | None:
        """The best face of a picture (3, S, S) that is cut out already, or None."""
        image = picture.movedim(0, -1)[None]
        faces = self._best(image)
        if not len(faces):
            return None
        batch = FaceBatch((faces,), (int(image.shape[1]), int(image.shape[2])), self.detector.name)
        features = self.encoder.encode_faces(image, [0], faces.boxes, faces.landmarks5, None)
        points = faces.landmarks5[0] if self.points is None else self.points(image, batch)
        return FacePhoto(name, picture, faces.landmarks5[0], points, features[EMBEDDING][0])

    def cut_out(self, name: str, image: Tensor) -> FacePhoto | None:
        """The best face of a photo (H, W, 3), cut out; None where there is none, or none any more after cutting."""
        faces = self._best(image[None])
        if not len(faces):
            return None
        batch = FaceBatch((faces,), (int(image.shape[0]), int(image.shape[1])), self.detector.name)
        crops, _ = cut_faces(image[None], batch, self.size, TEMPLATE)
        return self(name, crops[0].movedim(-1, 0).contiguous())

    def _best(self, images: Tensor) -> Faces:
        score = self.detector.default_score if self.score is None else self.score
        found = self.detector(images, score)[0]
        return found.take([0]) if len(found) else found


def read_persons(folder: Path, reader: PhotoReader) -> tuple[dict[str, list[FacePhoto]], dict[str, str]]:
    """Photos by person, one sub-folder each, and the reason for each file that was left out.

    Raises:
        BadTriplets: no sub-folder with pictures.
    """
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise BadTriplets(
            folder.name,
            expected="a folder for each person, with pictures",
            found="none" if folder.is_dir() else "no such folder",
            cure="sort the photos into one sub-folder for each person",
        )
    persons: dict[str, list[FacePhoto]] = {}
    left_out: dict[str, str] = {}
    for path in files:
        name = f"{path.parent.name}/{path.name}"
        image = read_photo(path)
        photo = None if image is None else reader.cut_out(name, image)
        if photo is None:
            left_out[name] = "cannot be read" if image is None else "no face found"
        else:
            persons.setdefault(path.parent.name, []).append(photo)
    return persons, left_out


def read_photo(path: Path) -> Tensor | None:
    """(H, W, 3), 0..1, turned as its EXIF says; None for a file that cannot be read."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            return pixels.view(image.height, image.width, 3).float() / 255
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return None


def swapper_proxy(swapper: FaceSwapper, encoder_id: str, boost: int = 1) -> Callable[[FacePhoto, FacePhoto], Tensor]:
    """A swapper of this pack as the maker of pseudo-targets; pasted with its usual soft rim.

    Args:
        swapper: any.
        encoder_id: id of the encoder that made the photos' embeddings; swappers refuse others than theirs.
        boost: see `adapters.swappers.pipeline.SwapOptions`.
    """

    def proxy(truth: FacePhoto, other: FacePhoto) -> Tensor:
        image = truth.picture.movedim(0, -1)[None]
        side = int(image.shape[1])
        box = torch.tensor([[0.0, 0.0, side, side]])
        batch = FaceBatch((Faces(box, truth.landmarks5[None], torch.ones(1)),), (side, side), "photo")
        identity = Identity(encoder_id, {EMBEDDING: other.embedding[None]})
        swapped = swap_faces(image, batch, swapper, identity, SwapOptions(boost))
        pasted, _ = paste_swaps(image, swapped.faces, swapped.crops)
        return pasted[0].movedim(-1, 0).contiguous()

    return proxy


def glasses_of(
    covered: Callable[[FacePhoto], float], bare: Path, reader: PhotoReader, least: float = 0.005
) -> GlassesEdit:
    """The fine-tune's edit from a parser and a folder of photos without glasses, as another tool made them.

    Args:
        covered: share of a photo that glasses cover, such as `parsed_share` of a parser.
        bare: holds the same sub-folders and names as the photos; what it lacks is left out.
        reader: as it read the photos.
        least: share from which on glasses are worn.
    """

    def removed(photo: FacePhoto) -> FacePhoto | None:
        image = read_photo(bare / photo.name) if (bare / photo.name).is_file() else None
        return None if image is None else reader.cut_out(photo.name, image)

    return GlassesEdit(lambda photo: covered(photo) >= least, removed)


def parsed_share(parser: FaceParser, part: str, photo: FacePhoto) -> float:
    """Share of what a parser looks at that is ``part``.

    Raises:
        BadTriplets: a parser without such a part.
    """
    if part not in parser.parts:
        raise BadTriplets(
            "parser for glasses",
            expected=f"a parser that knows {part}, such as SegFace's of CelebAMask-HQ",
            found=", ".join(parser.parts),
            cure="give the file of that label set",
        )
    image = photo.picture.movedim(0, -1)
    side = float(image.shape[0])
    view = parser.view(image, torch.tensor([0.0, 0.0, side, side]), photo.landmarks5, 0.0)
    labels = parser.labels([view])[0]
    return float((labels == parser.parts.index(part)).float().mean())
