"""Detection with an explicit policy for pictures without a face. A detector is any callable of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import FaceChoice, NoFaceFound
from .images import as_rgb
from .types import FaceBatch, Faces

OnMissingFace = Literal["error", "skip", "keep"]
Progress = Callable[[int, int], None]
PIXELS_AT_ONCE = 8_000_000
SMALL_SIDE = 1024


class Detector(Protocol):
    """What finds faces.

    Attributes:
        name: short name for reports.
        default_score: least score of a face where the caller gives none.
        network: weights, for whoever manages memory; None where they live outside torch.
    """

    name: str
    default_score: float
    network: nn.Module | None

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        """Faces of each of the (B, H, W, 3) RGB pictures 0..1: pixels, CPU, best first, score at least ``score``."""
        ...


@dataclass(frozen=True)
class _Try:
    """A second look at pictures in which nothing was found; ``change`` returns pictures, scale and shift (x, y)."""

    title: str
    growth: float
    change: Callable[[Tensor], tuple[Tensor, float, tuple[float, float]]]


def detect_faces(
    images: Tensor,
    detector: Detector,
    score: float | None = None,
    on_missing_face: OnMissingFace = "error",
    label: str = "image",
    retry: bool = True,
    on_progress: Progress | None = None,
) -> tuple[FaceBatch, list[int]]:
    """Find the faces of a batch of pictures.

    Pictures in which nothing is found, and only they, are looked at again: first with a black border of half a side
    (close-ups fill the whole picture), then enlarged twice (longer side below 1024) or shrunk to half. The first look
    that finds something counts; looks are never merged, and the notes say which one it was.

    Args:
        images: (B, H, W, C) pictures 0..1.
        detector: see `Detector`.
        score: least score; the detector's own default where None.
        on_missing_face: "error" raises; "skip" takes pictures without a face out of the batch; "keep" leaves them in
            with zero faces.
        label: what a picture is called in messages.
        retry: whether to look again.
        on_progress: called with (pictures done, B) after every chunk of the first look; may raise to cancel.

    Returns:
        The faces, and the numbers (from 0) of the pictures that are in the batch.

    Raises:
        BadImage: no pictures, or not finite ones.
        NoFaceFound: under "error", naming every picture without a face.
        FaceChoice: an unknown policy, or something else than a detector.
    """
    if on_missing_face not in get_args(OnMissingFace):
        raise FaceChoice(
            "on_missing_face",
            expected="error, skip or keep",
            found=repr(on_missing_face),
            cure="choose one of the three",
        )
    _check_detector(detector)
    pictures = as_rgb(images)
    least = detector.default_score if score is None else score
    found = _first_look(pictures, detector, least, on_progress)
    looks = _looks(pictures) if retry else []
    notes = [note for look in looks for note in _look_again(pictures, detector, least, found, look, label)]
    missing = [number for number, faces in enumerate(found) if not len(faces)]
    if missing and on_missing_face == "error":
        raise _no_face(detector, least, missing, len(found), label, looks)
    kept = [number for number in range(len(found)) if on_missing_face == "keep" or number not in set(missing)]
    if missing:
        fate = "kept with no face" if on_missing_face == "keep" else "left out"
        notes.append(f"no face in {numbered(label, missing)} (counted from 0): {fate}")
    size = (int(pictures.shape[1]), int(pictures.shape[2]))
    return FaceBatch(tuple(found[number] for number in kept), size, detector.name, notes=tuple(notes)), kept


def require_faces(batch: FaceBatch) -> None:
    """Refuse a batch without any picture, which ``skip`` leaves when no picture has a face; no host can show one.

    Raises:
        NoFaceFound: when the batch is empty.
    """
    if len(batch) == 0:
        raise NoFaceFound(
            "detect faces",
            expected="a face in at least one picture",
            found="none, so that skip left no picture",
            cure="lower the score, give boxes by hand, or set on_missing_face to keep",
        )


def _check_detector(detector: Any) -> None:
    """Refuse what a graph may hold in a detector's place, such as a number."""
    if not (callable(detector) and hasattr(detector, "default_score")):
        raise FaceChoice(
            "detector", expected="a face detector", found=type(detector).__name__, cure="connect Load Face Detector"
        )


def _first_look(pictures: Tensor, detector: Detector, score: float, on_progress: Progress | None) -> list[Faces]:
    found: list[Faces] = []
    for numbers in _parts(range(pictures.shape[0]), pictures, 1.0):
        found.extend(detector(pictures[numbers[0] : numbers[-1] + 1], score))
        if on_progress is not None:
            on_progress(len(found), pictures.shape[0])
    return found


def _look_again(
    pictures: Tensor, detector: Detector, score: float, found: list[Faces], look: _Try, label: str
) -> list[str]:
    """Fill the empty entries of ``found`` in place; return a note if any was filled."""
    missing = [number for number, faces in enumerate(found) if not len(faces)]
    helped = []
    for numbers in _parts(missing, pictures, look.growth):
        changed, scale, shift = look.change(pictures[torch.tensor(numbers)])
        for number, faces in zip(numbers, detector(changed, score), strict=True):
            if len(faces):
                found[number] = _mapped_back(faces, scale, shift)
                helped.append(number)
    return [f"{numbered(label, helped)}: found only {look.title}"] if helped else []


def _parts(numbers: Sequence[int], pictures: Tensor, growth: float) -> Iterator[Sequence[int]]:
    """Runs of picture numbers whose pictures, grown in area, stay within a bounded number of pixels."""
    pixels = pictures.shape[1] * pictures.shape[2] * growth
    step = max(1, int(PIXELS_AT_ONCE // max(1.0, pixels)))
    return (numbers[start : start + step] for start in range(0, len(numbers), step))


def _looks(pictures: Tensor) -> list[_Try]:
    small = max(pictures.shape[1:3]) < SMALL_SIDE
    enlarged = _Try("enlarged to twice the size", 4.0, _resized(2.0))
    halved = _Try("shrunk to half", 0.25, _resized(0.5))
    return [_Try("with a border of half a side on every side", 4.0, _padded), enlarged if small else halved]


def _padded(pictures: Tensor) -> tuple[Tensor, float, tuple[float, float]]:
    top, left = max(1, pictures.shape[1] // 2), max(1, pictures.shape[2] // 2)
    return functional.pad(pictures, (0, 0, left, left, top, top)), 1.0, (float(left), float(top))


def _resized(scale: float) -> Callable[[Tensor], tuple[Tensor, float, tuple[float, float]]]:
    def change(pictures: Tensor) -> tuple[Tensor, float, tuple[float, float]]:
        channels_first = pictures.permute(0, 3, 1, 2)
        size = (max(1, int(pictures.shape[1] * scale)), max(1, int(pictures.shape[2] * scale)))
        if scale > 1:
            resized = functional.interpolate(channels_first, size=size, mode="bilinear", align_corners=False)
        else:
            resized = functional.interpolate(channels_first, size=size, mode="area")
        return resized.permute(0, 2, 3, 1).contiguous(), scale, (0.0, 0.0)

    return change


def _mapped_back(faces: Faces, scale: float, shift: tuple[float, float]) -> Faces:
    offset = torch.tensor(shift)
    return Faces((faces.boxes - offset.repeat(2)) / scale, (faces.landmarks5 - offset) / scale, faces.scores)


def numbered(label: str, numbers: Sequence[int]) -> str:
    """``image 3`` or ``images 0, 4``; every number is named, runs of three and more as ``7-19``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"{label}{'s' if len(numbers) > 1 else ''} {', '.join(words)}"


def _no_face(
    detector: Detector, score: float, missing: list[int], count: int, label: str, looks: Sequence[_Try]
) -> NoFaceFound:
    tried = ", then ".join(["as it is", *(look.title for look in looks)])
    return NoFaceFound(
        numbered(label, missing) + " (counted from 0)",
        expected=f"a face with a score of at least {score:g} in every {label}",
        found=f"none in {len(missing)} of {count} with {detector.name} (tried {tried})",
        cure="use clearer, upright pictures, lower the score, give boxes, points or a mask instead of detection, "
        'or set on_missing_face to "skip" or "keep"',
    )
