"""Lip-sync of frames: cut, encoded, painted in one call of MuseTalk's UNet, decoded, pasted. A batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..adapters.encoders.whisper.musetalk_position import with_positions
from ..adapters.families.musetalk.adapter import V1
from ..adapters.families.musetalk.voice import Voice
from ..adapters.parsers.base import parse_faces
from ..faces import lip_paste
from ..faces.errors import BadImage, FaceChoice, NoFaceFound
from ..faces.images import as_rgb
from ..faces.lip_box import EXTRA_MARGIN, Box, lip_box
from ..faces.lip_mask import class_table
from ..faces.lip_paste import Paste
from ..faces.parts import ParsedFaces, label_maps
from ..faces.types import FaceBatch
from .host import stop_if_cancelled
from .loaded_parser import LoadedParser
from .mean_latent import encode_mean
from .musetalk import MuseTalkFacts, load_for, musetalk_facts, predict
from .unavglip import keeps_identity

OnMissing = Literal["keep", "error"]
ON_MISSING: tuple[str, ...] = get_args(OnMissing)
AUTO = "auto"
PASTES = (AUTO, *lip_paste.PASTES)
Length = Literal["clip", "sound"]
LENGTHS: tuple[str, ...] = get_args(Length)
OnFrame = Callable[[], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LipSyncOptions:
    """What a user sets.

    Attributes:
        paste: a region of `lip_paste.PASTES`, or auto: with an identity the full face, else v1.5's jaw or v1's raw;
            without a parser the box.
        shift: pixels by which the middle line moves down (v1's ``bbox_shift``; v1.5 has 0).
        margin: pixels below the chin; -1 for the version's own (v1.5: 10, v1: 0).
        cheek: see `lip_mask.region_mask`.
        batch: frames in one call of the network.
    """

    paste: str = AUTO
    shift: int = 0
    margin: int = -1
    cheek: int = 90
    batch: int = 8


@dataclass
class Count:
    """What became of the frames.

    Attributes:
        painted: frames with a new mouth.
        without_face: numbers of frames that have no face.
        silent: frames behind the end of the sound.
        filled: frames of the clip in which no face was found and its place was taken from those around.
    """

    painted: int = 0
    without_face: list[int] = field(default_factory=list)
    silent: int = 0
    filled: int = 0


class LipSync:
    """Everything lip-sync needs but frames.

    Args:
        model: a MuseTalk MODEL, with or without an identity.
        vae: of SD1.x.
        options: see `LipSyncOptions`.
        parser: tells the parts of faces, for pasting; None where the faces bring them, or the box is pasted.

    Raises:
        BaseModelMismatch: another model.
    """

    def __init__(self, model: Any, vae: Any, options: LipSyncOptions, parser: LoadedParser | None = None) -> None:
        self.facts: MuseTalkFacts = musetalk_facts(model, "Lip Sync")
        self.options, self.parser = options, parser
        self.keeps_person = keeps_identity(model)
        self._model, self._vae = model, vae

    def region(self, parts: bool) -> Paste:
        """The region that is pasted.

        Args:
            parts: whether the parts of the faces are known, or a parser is there to tell them.

        Raises:
            FaceChoice: a region that needs parts where nothing tells them.
        """
        wanted = self.options.paste
        if wanted == AUTO:
            own: Paste = "full_face" if self.keeps_person else "raw" if self.facts.version == V1 else "jaw"
            return own if parts else "box"
        chosen: Paste = wanted  # type: ignore[assignment]
        if chosen != "box" and not parts:
            raise FaceChoice(
                f"paste {chosen}",
                expected="faces whose parts are known",
                found="no parser",
                cure="connect 'Load Face Parser', or set paste to box",
            )
        return chosen

    def region_of(self, faces: FaceBatch) -> Paste:
        """The region that is pasted for these faces; see `region`."""
        return self.region(self.parser is not None or isinstance(faces, ParsedFaces))

    def boxes(self, faces: FaceBatch) -> list[Box | None]:
        """The box of each frame's first face."""
        margin = self.options.margin
        below = margin if margin >= 0 else 0 if self.facts.version == V1 else EXTRA_MARGIN
        return [lip_box(one, *faces.image_size, self.options.shift, below) for one in faces.images]

    def frames(
        self,
        images: Tensor,
        faces: FaceBatch,
        voice: Voice,
        moments: Sequence[Fraction],
        count: Count,
        first: int = 0,
        on_frame: OnFrame = lambda: None,
    ) -> Tensor:
        """As many frames (B, H, W, 3) as came in; those without a face or sound are the same.

        Args:
            images: (B, H, W, 3), 0..1.
            faces: of these frames; parsed ones need no parser.
            voice: see `Voice`.
            moments: when each frame is shown, in seconds from the beginning of the sound.
            count: is told what became of each frame.
            first: number of the first frame in its clip.
            on_frame: called after each frame; may raise to cancel.
        """
        boxes = self.boxes(faces)
        heard = [voice.heard(moment) for moment in moments]
        count.without_face += [first + place for place, box in enumerate(boxes) if box is None]
        count.silent += heard.count(False)
        result = images.clone()
        for start in range(0, len(images), self.options.batch):
            places = range(start, min(start + self.options.batch, len(images)))
            chosen = [place for place in places if boxes[place] is not None and heard[place]]
            if chosen:
                tokens = voice.tokens([moments[place] for place in chosen])
                self._batch(result, images, faces, boxes, chosen, tokens)
            count.painted += len(chosen)
            for _ in places:
                on_frame()
        return result

    def _batch(
        self,
        result: Tensor,
        images: Tensor,
        faces: FaceBatch,
        boxes: Sequence[Box | None],
        chosen: Sequence[int],
        tokens: Tensor,
    ) -> None:
        """Paint the chosen frames into ``result``."""
        stop_if_cancelled()
        labels = self._labels(images, faces, chosen)
        options = lip_paste.paste_options(self.region(labels is not None), self.options.cheek)
        areas = [box for box in (boxes[place] for place in chosen) if box is not None]
        crops = (
            torch.stack(
                [lip_paste.cut_frame(images[place], box) for place, box in zip(chosen, areas, strict=True)]
            ).float()
            / 255
        )
        painted = self.painted(crops, tokens)
        if self.keeps_person:
            painted = lip_paste.keep_upper(painted, crops)
        for row, (place, box) in enumerate(zip(chosen, areas, strict=True)):
            stop_if_cancelled()
            classes = None
            if labels is not None:
                classes = lip_paste.square_classes(labels[0][row], labels[1], lip_paste.crop_box(box, options.expand))
            result[place] = lip_paste.paste_into(images[place], painted[row], classes, box, options).to(result)

    @torch.inference_mode()
    def painted(self, crops: Tensor, tokens: Tensor) -> Tensor:
        """Crops (B, 3, 256, 256), 0..1, and audio tokens (B, 50, 384) to painted crops of the same shape."""
        base = self._model.model
        both = encode_mean(self._vae, torch.cat([lip_paste.masked(crops), crops]), "MuseTalk")
        latents = torch.cat(base.process_latent_in(both).chunk(2), dim=1)
        load_for(self._model, len(latents), latents.shape[-1])
        found = base.process_latent_out(predict(self._model, latents, with_positions(tokens)))
        decoded: Tensor = self._vae.decode(found)
        return decoded.movedim(-1, 1)[:, :3].clamp(0, 1).float().cpu()

    def _labels(self, images: Tensor, faces: FaceBatch, chosen: Sequence[int]) -> tuple[Tensor, Tensor] | None:
        """Numbers of parts (N, H, W) of the chosen frames, and BiSeNet's class of each number; None where unknown."""
        if self.options.paste == "box":
            return None
        known = _of_frames(faces, chosen)
        if self.parser is not None and not isinstance(known, ParsedFaces):
            first = tuple(one.take([0]) for one in known.images)
            known = parse_faces(self.parser, images[list(chosen)], replace(known, images=first))
        return (label_maps(known), class_table(known.parts)) if isinstance(known, ParsedFaces) else None


def sync_images(
    job: LipSync,
    images: Tensor,
    faces: FaceBatch,
    voice: Voice,
    on_missing: OnMissing = "keep",
    length: Length = "clip",
    tell: Progress = lambda done, total: None,
) -> tuple[Tensor, Count]:
    """Frames of a clip in memory with the mouth of a voice; frame n hears window n.

    Args:
        job: see `LipSync`.
        images: (B, H, W, 3), 0..1.
        faces: of these frames; the first of each is painted.
        voice: at the frames' own rate.
        on_missing: "keep" passes frames without a face unchanged, "error" stops.
        length: see `played`.
        tell: called with (frames done, frames in all); may raise to cancel.

    Raises:
        BadImage: other frames than those of the faces.
        NoFaceFound: frames without a face under "error", or no face in any.
    """
    rgb = as_rgb(images, "frames")
    size = (int(rgb.shape[1]), int(rgb.shape[2]))
    if (len(rgb), size) != (len(faces), faces.image_size):
        raise BadImage(
            "frames and faces",
            expected=f"the {len(faces)} frames of {faces.image_size[1]} x {faces.image_size[0]} of the faces",
            found=f"{len(rgb)} of {size[1]} x {size[0]}",
            cure="connect the frames in which the faces were found, with on_missing_face keep",
        )
    job.region_of(faces)
    check_faces(job, faces, on_missing)
    order = played(len(rgb), voice.frames if length == "sound" else len(rgb))
    if order != list(range(len(rgb))):
        rgb, faces = rgb[order], _of_frames(faces, order)
    count, done = Count(), 0

    def told() -> None:
        nonlocal done
        done += 1
        tell(done, len(order))

    moments = [place / voice.fps for place in range(len(order))]
    return job.frames(rgb, faces, voice, moments, count, on_frame=told), count


def played(frames: int, total: int) -> list[int]:
    """Which frame of a clip is shown at each of ``total`` places: past its end backwards, then forwards again."""
    places = (place % (2 * frames) for place in range(total))
    return [place if place < frames else 2 * frames - 1 - place for place in places]


def check_faces(job: LipSync, faces: FaceBatch, on_missing: OnMissing) -> None:
    """Refuse a clip without any face, and under "error" one with frames that have none.

    Raises:
        NoFaceFound: naming the frames.
    """
    missing = [number for number, box in enumerate(job.boxes(faces)) if box is None]
    if not missing or (on_missing == "keep" and len(missing) < len(faces)):
        return
    shown = ", ".join(map(str, missing[:10])) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    raise NoFaceFound(
        "lip-sync",
        expected="a face in every frame" if on_missing == "error" else "a face in at least one frame",
        found=f"none in {len(missing)} of {len(faces)} frames ({shown}, counted from 0)",
        cure="track the faces, lower the detector's score, or set on_missing_face to keep"
        if len(missing) < len(faces)
        else "lower the detector's score, or choose another clip",
    )


def sync_report(job: LipSync, count: Count, frames: int, voice: Voice, region: str) -> str:
    """What was done, one fact per line."""
    version = "MuseTalk v1" if job.facts.version == V1 else "MuseTalk v1.5"
    lines = [
        f"{version}{' with UnAvgLip' if job.keeps_person else ''}, pasted by {region}",
        f"{frames} frames at {float(voice.fps):.6g} fps, {count.painted} with a new mouth",
    ]
    if count.filled:
        lines.append(f"{count.filled} frames without a face found, its place taken from those around")
    if count.without_face:
        lines.append(f"{len(count.without_face)} frames without a face, left as they are")
    if count.silent:
        lines.append(f"{count.silent} frames behind the end of the sound, left as they are")
    return "\n".join(lines)


def _of_frames(faces: FaceBatch, chosen: Sequence[int]) -> FaceBatch:
    """The faces of some frames, in that order, with their parts where these are known."""
    images = tuple(faces.images[place] for place in chosen)
    if not isinstance(faces, ParsedFaces):
        return FaceBatch(images, faces.image_size, faces.detector)
    wanted: dict[int, list[int]] = {place: [] for place in chosen}
    for row, place in enumerate(faces.index):
        if place in wanted:
            wanted[place].append(row)
    rows = [row for place in chosen for row in wanted[place]]
    matrices = None if faces.matrices is None else faces.matrices[rows]
    return replace(faces, images=images, labels=tuple(faces.labels[row] for row in rows), matrices=matrices)
