"""Faces from a folder of photographs, one sub-folder for each person, as recognisers and adapters learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..faces.align import crop_faces
from ..faces.detect import Detector, Progress, detect_faces
from ..faces.errors import BadImage, NoFaceFound
from ..faces.types import Faces
from .pictures import SUFFIXES, files_digest, picture_files, reasons_told
from .recogniser.people import SIZE, TEMPLATE

LEAST_PERSONS = 2
# A portrait is a square around the face with room for hair and shoulders: its side in sides of the face's box.
ROOM = 2.2


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph in which a face was found.

    Attributes:
        path: the file.
        person: number of the person.
        portrait: (S, S, 3) uint8, a square around the face.
        face: box, points and score of the one face, in pixels of the portrait.
        crop: (3, 112, 112) uint8, aligned as recognisers want it.
    """

    path: Path
    person: int
    portrait: Tensor
    face: Faces
    crop: Tensor


@dataclass(frozen=True, eq=False)
class PeopleFolder:
    """Photographs of several persons; a source of labelled faces for a recogniser (see `recogniser.people.People`).

    Attributes:
        names: of the persons, which are those of the sub-folders.
        photos: in the order of persons and paths.
        left_out: files that cannot be used, with the reason.
        digest: see `pictures.files_digest`.
    """

    names: tuple[str, ...]
    photos: tuple[Photo, ...]
    left_out: dict[Path, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def count(self) -> int:
        """How many persons there are."""
        return len(self.names)

    @property
    def persons(self) -> Tensor:
        """(N,) whose photograph it is."""
        return torch.tensor([photo.person for photo in self.photos])

    @property
    def portraits(self) -> Tensor:
        """(N, S, S, 3), 0..1."""
        return torch.stack([photo.portrait for photo in self.photos]).float() / 255

    def pictures(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, 112, 112) aligned faces in -1..1 of the persons ``labels`` (B,), drawn among their photographs."""
        persons, chosen = self.persons, []
        for label in labels.tolist():
            own = (persons == label).nonzero().flatten()
            chosen.append(self.photos[int(own[torch.randint(len(own), (), generator=generator)])].crop)
        return torch.stack(chosen).float() / 127.5 - 1

    def told(self) -> str:
        """A line for reports."""
        text = f"{len(self.photos)} photographs of {self.count} persons"
        if self.left_out:
            text += f"; left out: {reasons_told(self.left_out)}"
        return text


def load_people(
    folder: Path, detector: Detector, size: int = SIZE, least: int = 1, on_progress: Progress | None = None
) -> PeopleFolder:
    """Find the best face of every photograph.

    Args:
        folder: with one sub-folder for each person; deeper folders belong to the person above them.
        detector: what finds faces.
        size: side of the portraits, see `Photo`.
        least: photographs that every person must have: 1 for a recogniser, 2 for an adapter.
        on_progress: called with photographs done and in all; what it raises stops.

    Raises:
        BadImage: no such folder, no pictures, one person alone, or a person with fewer than ``least`` of them that can
            be read.
        NoFaceFound: a person with readable pictures but faces in fewer than ``least``.
    """
    people = _people(folder)
    total, done = sum(map(len, people.values())), 0
    photos: list[Photo] = []
    left_out: dict[Path, str] = {}
    for person, (name, files) in enumerate(people.items()):
        before, unread = len(photos), 0
        for path in files:
            pixels = _read(path)
            found = None if isinstance(pixels, str) else _photo(path, person, pixels, detector, size)
            if found is None:
                left_out[path] = pixels if isinstance(pixels, str) else "no face"
                unread += isinstance(pixels, str)
            else:
                photos.append(found)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
        if len(photos) - before < least:
            raise _too_few(name, files, left_out, len(photos) - before, least, len(files) - unread >= least)
    digest = files_digest(folder, (photo.path for photo in photos), size)
    return PeopleFolder(tuple(people), tuple(photos), left_out, digest)


def _people(folder: Path) -> dict[str, list[Path]]:
    """Files by person, sorted; every sub-folder with a picture is a person, hidden ones are not."""
    if not folder.is_dir():
        raise _bad_folder(folder, "no such folder")
    found: dict[str, list[Path]] = {}
    for person in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
        files = picture_files(person)
        if files:
            found[person.name] = files
    if not found:
        loose = any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        raise _bad_folder(folder, "pictures outside of sub-folders" if loose else "no picture")
    if len(found) < LEAST_PERSONS:
        raise _bad_folder(folder, f"one person ({next(iter(found))})")
    return found


def _bad_folder(folder: Path, found: str) -> BadImage:
    return BadImage(
        f"folder {folder.name}",
        expected=f"a sub-folder with photographs for each of {LEAST_PERSONS} or more persons",
        found=found,
        cure="make a sub-folder for each person and put the photographs there",
    )


def _too_few(
    name: str, files: Sequence[Path], left_out: dict[Path, str], usable: int, least: int, readable: bool
) -> BadImage | NoFaceFound:
    reasons = {path: left_out[path] for path in files if path in left_out}
    kind = NoFaceFound if readable else BadImage
    return kind(
        f"photographs of {name}",
        expected=f"{least} or more that can be read and show a face",
        found=f"{usable} of {len(files)}" + (f" ({reasons_told(reasons)})" if reasons else ""),
        cure="add clearer photographs of this person, or take the sub-folder away",
    )


def _read(path: Path) -> Tensor | str:
    """(1, H, W, 3) in 0..1 as EXIF turns it, or why it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"cannot be read ({type(error).__name__})"
    return pixels.view(1, image.height, image.width, 3).float() / 255


def _photo(path: Path, person: int, pixels: Tensor, detector: Detector, size: int) -> Photo | None:
    batch, _ = detect_faces(pixels, detector, on_missing_face="keep", label=path.name)
    faces = batch.images[0]
    if not len(faces):
        return None
    box, points = faces.boxes[0].float(), faces.landmarks5[0].float()
    crop = crop_faces(pixels, torch.zeros(1, dtype=torch.long), points[None], TEMPLATE, SIZE, "border")[0]
    portrait, moved, factor = _portrait(pixels, box, size)
    found = Faces(((box - moved.repeat(2)) * factor)[None], ((points - moved) * factor)[None], faces.scores[:1].float())
    return Photo(path, person, _bytes(portrait), found, _bytes(crop))


def _portrait(pixels: Tensor, box: Tensor, size: int) -> tuple[Tensor, Tensor, float]:
    """(S, S, 3) around a box, its corner (x, y) in the photograph, and the factor of its size."""
    height, width = pixels.shape[1:3]
    side = max(8, min(height, width, round(float((box[2:] - box[:2]).max()) * ROOM)))
    middle = (box[:2] + box[2:]) / 2
    left = min(max(0, round(float(middle[0]) - side / 2)), width - side) if width > side else 0
    top = min(max(0, round(float(middle[1]) - side / 2)), height - side) if height > side else 0
    square = pixels[:, top : top + side, left : left + side].movedim(-1, 1)
    resized = torch.nn.functional.interpolate(
        square, (size, size), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)
    return resized[0].movedim(0, -1), torch.tensor([float(left), float(top)]), size / square.shape[-1]


def _bytes(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)
