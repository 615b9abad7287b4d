"""Swapping faces through a clip that is too long to be held: faces are found first, then frames are changed in chunks.

Whoever reads and writes files is passed in, so that a graph, a command and a test share this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ...faces.detect import Detector, OnMissingFace, Progress
from ...faces.errors import BadMask
from ...faces.masks import as_mask
from ...faces.parts import by_picture, part_masks, part_numbers
from ...faces.swap_masks import joined_mask, padded_box
from ...faces.swap_paste import PasteOptions, paste_swaps, unseen
from ...faces.tracking import TrackedFaces, tracks_table
from ...faces.types import FaceBatch
from ..clip_faces import ClipFrames, FollowOptions, find_faces, part_of
from ..encoders.base import FaceEncoder
from ..identity import Identity
from ..parsers.base import FaceParser, parse_faces
from .base import FaceSwapper, describe
from .pipeline import SwapOptions, require_some, swap_faces

Choose = Callable[[FaceBatch], FaceBatch]
Change = Callable[[Tensor, int], Tensor]
UNSEEN = "nothing is seen of the swap (masks, shrink or strength)"


class Written(Protocol):
    """What a written clip tells."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        ...


class Clip(ClipFrames, Protocol):
    """A clip that can be written once too, such as `media.transform.ClipJob`."""

    def write(self, change: Change, on_frame: Progress, total: int) -> Written:
        """Write every frame as ``change(frames, number of the first)`` makes it."""
        ...


@dataclass(frozen=True, eq=False)
class ClipMasks:
    """Where a swapped face may be seen.

    Attributes:
        sides: percent of the crop cut off at the top, right, bottom and left.
        blur: fades the sides over this share of half a side.
        parser: tells the parts of the faces in each frame; None takes the whole crop.
        parts: names of the parts to swap, see `faces.parts.part_numbers`.
        picture: (H, W), (1, H, W) or (frames of the clip, H, W), where frames may change.
    """

    sides: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    blur: float = 0.0
    parser: FaceParser | None = None
    parts: str = "face"
    picture: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ClipSwap:
    """Everything a swap through a clip needs.

    Attributes:
        detector: finds faces.
        swapper: the network.
        identity: whom faces become.
        encoder: compares persons; needed for a reference, and for a weight other than neutral.
        choose: which of all faces are swapped; sees the whole clip at once.
        follow: see `FollowOptions`.
        swap: see `SwapOptions`.
        paste: see `PasteOptions`.
        masks: see `ClipMasks`.
        on_missing_face: ``"error"`` stops before anything is written and names the frames; ``"keep"`` passes frames
            without a face unchanged and names them; ``"skip"`` passes them and counts them.
    """

    detector: Detector
    swapper: FaceSwapper
    identity: Identity
    encoder: FaceEncoder | None = None
    choose: Choose | None = None
    follow: FollowOptions = field(default_factory=FollowOptions)
    swap: SwapOptions = field(default_factory=SwapOptions)
    paste: PasteOptions = field(default_factory=PasteOptions)
    masks: ClipMasks = field(default_factory=ClipMasks)
    on_missing_face: OnMissingFace = "keep"


def swap_clip(clip: Clip, job: ClipSwap, on_progress: Progress | None = None) -> tuple[Written, FaceBatch, str]:
    """Find the faces of a clip, choose, swap them, and write it with as many frames as it has.

    Args:
        clip: read twice, and once more where lost faces are looked for again.
        job: see `ClipSwap`.
        on_progress: called after every frame that was searched or written with (done, in all); may raise to cancel.

    Returns:
        What was written, the faces that were swapped, and the report.

    Raises:
        NoFaceFound: frames without a face under "error".
        BadMask: neither one mask for all frames nor one for each.
    """
    started = time.perf_counter()
    tell = on_progress or (lambda done, total: None)
    found = find_faces(clip, job.detector, job.encoder, job.follow, lambda n, of: tell(n, 2 * max(n, of)))
    chosen = found if job.choose is None else job.choose(found)
    if job.on_missing_face == "error":
        require_some(chosen)
    total = len(found)
    _check_masks(job.masks.picture, total)
    change = ClipChange(chosen, job)
    written = clip.write(change, lambda n, of: tell(total + n, 2 * total), total)
    report = clip_report(job, chosen, change, written, time.perf_counter() - started)
    return written, chosen, report


def _check_masks(masks: Tensor | None, frames: int) -> None:
    if masks is not None and masks.ndim == 3 and len(masks) not in (1, frames):
        raise BadMask(
            "mask of the clip",
            expected=f"one mask for all frames, or one for each of the {frames} frames",
            found=f"{len(masks)} masks",
            cure="give one mask, or as many as the clip has frames",
        )


class ClipChange:
    """Swaps the faces of a chunk.

    Args:
        faces: of every frame of the clip.
        job: see `ClipSwap`.

    Attributes:
        swapped, frames: number of faces swapped so far, and of frames with one.
        unseen: frames in which no mask lets anything of them be seen.
    """

    def __init__(self, faces: FaceBatch, job: ClipSwap) -> None:
        self._faces, self._job = faces, job
        self.swapped = self.frames = 0
        self.unseen: list[int] = []

    def __call__(self, frames: Tensor, first: int) -> Tensor:
        """Return the frames (B, H, W, 3) with swapped faces; those without a face are the same."""
        job = self._job
        part = part_of(self._faces, first, first + len(frames))
        if not any(part.counts):
            return frames
        done = swap_faces(frames, part, job.swapper, job.identity, job.swap)
        if not len(done.crops):
            return frames
        size = int(done.crops.shape[1])
        pasted, changed = paste_swaps(
            frames,
            done.faces,
            done.crops,
            job.paste,
            self._crop_masks(size, len(done.crops)),
            self._where(frames, part, first),
        )
        self.swapped += sum(done.faces.counts)
        self.frames += sum(count > 0 for count in done.faces.counts)
        self.unseen += [first + number for number in unseen(done.faces, changed)]
        return pasted

    def _crop_masks(self, size: int, count: int) -> Tensor | None:
        masks = self._job.masks
        if not any(masks.sides) and not masks.blur:
            return None
        return joined_mask(size, count, [], padded_box(size, masks.sides, masks.blur))

    def _where(self, frames: Tensor, part: FaceBatch, first: int) -> Tensor | None:
        masks, given = self._job.masks, self._job.masks.picture
        if given is not None:
            one_for_all = given.ndim == 2 or len(given) == 1
            given = as_mask(given if one_for_all else given[first : first + len(frames)], *frames.shape[:3])
        if masks.parser is None:
            return given
        parsed = parse_faces(masks.parser, frames, part)
        parts = by_picture(parsed, part_masks(parsed, part_numbers(parsed.parts, masks.parts)))
        return parts if given is None else torch.minimum(parts, given)


def clip_report(job: ClipSwap, faces: FaceBatch, change: ClipChange, written: Written, seconds: float) -> str:
    """What was done: frames, faces, persons, what had no face or was left alone, speed, and what could not be kept."""
    missing = [number for number, count in enumerate(faces.counts) if not count]
    rate = written.frames / seconds if seconds > 0 else 0.0
    lines = [
        f"{change.swapped} faces swapped in {change.frames} of {len(faces)} frames, {written.frames} frames written",
        f"{seconds:.1f} s, {rate:.1f} frames per second, finding and swapping together",
        describe(job.swapper),
    ]
    if isinstance(faces, TrackedFaces):
        lines.append(tracks_table(faces))
    if missing and job.on_missing_face == "keep":
        lines.append(f"no face to swap, passed unchanged: {ranges(missing)} (counted from 0)")
    elif missing:
        lines.append(f"no face to swap, passed unchanged: {len(missing)} frames")
    return "\n".join([*lines, *(f"note: {note}" for note in (*_left_alone(job, faces, change), *written.notes))])


def _left_alone(job: ClipSwap, faces: FaceBatch, change: ClipChange) -> list[str]:
    notes = []
    left = sum(faces.counts) - change.swapped
    if left:
        notes.append(f"{left} faces left as they are: the identity has no row for them")
    if job.masks.parser is None and job.masks.parts.strip() not in ("", ClipMasks.parts):
        notes.append(f"parts {job.masks.parts!r} not used: they need a parser")
    if change.unseen:
        notes.append(f"{UNSEEN} in frames: {ranges(change.unseen)} (counted from 0)")
    return notes


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers with runs written as 3-9."""
    parts: list[str] = []
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            first, last = numbers[start], numbers[place - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = place
    return ", ".join(parts)
