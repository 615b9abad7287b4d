"""A strength for each frame of a clip, as a mask that every node with a mask input takes.

Masks hold 0..1, so a schedule becomes its largest value (for the strength input) and each frame's share of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..faces.errors import LikenessError
from ..faces.masks import as_mask
from ..faces.typed import typed

Between = Literal["linear", "smooth", "hold"]
BETWEEN: tuple[str, ...] = get_args(Between)
# Masks of constants need few pixels; every use resizes them.
SIDE = 8


class BadSchedule(LikenessError):
    """A text that is no schedule of strengths."""


@dataclass(frozen=True)
class FrameStrengths:
    """One strength, 0 or more, for each frame."""

    values: tuple[float, ...]

    @property
    def peak(self) -> float:
        """The largest strength."""
        return max(self.values)

    def mask(self, mask: Tensor | None = None) -> Tensor:
        """Each frame's share of `peak` as masks (F, H, W), 0..1, times ``mask`` (H, W), (1, H, W) or (F, H, W)."""
        shares = torch.tensor([value / self.peak if self.peak else 0.0 for value in self.values])[:, None, None]
        if mask is None:
            return shares.expand(-1, SIDE, SIDE).clone()
        return as_mask(mask, len(self.values), int(mask.shape[-2]), int(mask.shape[-1])) * shares

    def as_text(self) -> str:
        """One line per run of equal strengths."""
        lines, start = [], 0
        for number in range(1, len(self.values) + 1):
            if number == len(self.values) or self.values[number] != self.values[start]:
                span = f"{start}" if number - 1 == start else f"{start}-{number - 1}"
                lines.append(f"frame {span}: {self.values[start]:g}")
                start = number
        return "\n".join(lines)


def frame_strengths(text: str, frames: int, between: Between = "linear") -> FrameStrengths:
    """Read a schedule for ``frames`` frames.

    Args:
        text: one number for all frames; or as many numbers as frames; or key frames such as ``0: 1.0, 8: 0.4, -1: 0``,
            counted from 0, and from the end where negative. Separated by commas, semicolons or lines.
        frames: number of frames, 1 or more.
        between: what happens between key frames: a line, a smooth curve, or the last one held. Before the first and
            behind the last key frame its value holds.

    Raises:
        BadSchedule: another text, a negative strength, a key frame twice or outside the clip.
    """
    if between not in BETWEEN or frames < 1:
        raise BadSchedule(
            "frame strengths",
            expected=f"1 frame or more, and one of {', '.join(BETWEEN)}",
            found=f"{frames} frames, {between}",
            cure="set the number of frames of the latent",
        )
    entries = [entry.strip() for entry in re.split(r"[,;\n]", typed(text)) if entry.strip()]
    if entries and all(":" in entry for entry in entries):
        return FrameStrengths(_interpolated(_key_frames(entries, frames), frames, between))
    values = [_strength(entry) for entry in entries]
    if len(values) not in (1, frames):
        raise BadSchedule(
            "frame strengths",
            expected=f"one number, {frames} numbers, or key frames such as 0: 1.0, {frames - 1}: 0.5",
            found=f"{len(values)} numbers",
            cure="give a number for each frame, or key frames",
        )
    return FrameStrengths(tuple(values * (frames if len(values) == 1 else 1)))


def _key_frames(entries: list[str], frames: int) -> dict[int, float]:
    keys: dict[int, float] = {}
    for entry in entries:
        name, _, value = entry.partition(":")
        if not re.fullmatch(r"-?\d+", name.strip()):
            raise _bad(entry)
        frame = int(name)
        frame = frame + frames if frame < 0 else frame
        if not 0 <= frame < frames or frame in keys:
            raise BadSchedule(
                "frame strengths",
                expected=f"each key frame once, from 0 to {frames - 1}",
                found=f"key frame {int(name)}",
                cure="correct the schedule or the number of frames",
            )
        keys[frame] = _strength(value)
    return keys


def _interpolated(keys: dict[int, float], frames: int, between: str) -> tuple[float, ...]:
    known = sorted(keys)
    values = []
    for frame in range(frames):
        before = max((key for key in known if key <= frame), default=known[0])
        after = min((key for key in known if key >= frame), default=known[-1])
        part = 0.0 if after <= before else (frame - before) / (after - before)
        if between == "smooth":
            part = part * part * (3 - 2 * part)
        elif between == "hold":
            part = 0.0
        values.append(keys[before] + part * (keys[after] - keys[before]))
    return tuple(values)


def _strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise _bad(text) from error
    if not math.isfinite(value) or value < 0:
        raise _bad(text)
    return value


def _bad(text: str) -> BadSchedule:
    return BadSchedule(
        "frame strengths",
        expected="numbers of 0 or more, or frame: number",
        found=repr(text.strip()),
        cure="write it like 0: 1.0, 8: 0.5, 15: 0",
    )
