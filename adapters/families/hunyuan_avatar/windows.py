"""Clips longer than a model window: windows that move on with every step, so that their seams fall nowhere twice.

Facts: the sampling loop of ``hymm_sp/diffusion/pipelines/pipeline_hunyuan_video_audio.py`` ("time-aware position shift
fusion", after Sonic) of Tencent-Hunyuan/HunyuanVideo-Avatar. Windows lie side by side around the clip, whose end meets
its beginning; before each step all of them move back by ten latent frames. Frames in two windows get the mean. Nothing
is blended at a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....faces.errors import LikenessError

# Latent frames of a window, and by how many windows move at each step (the paper speaks of 3 to 7).
WINDOW, SHIFT = 33, 10
# Video frames for one latent frame; the first latent frame is one video frame alone.
RATE = 4
# Video frames (at 25 a second) of one window, and beyond how many the official code stops.
WINDOW_FRAMES, LIMIT_FRAMES = RATE * (WINDOW - 1) + 1, 400
LATENT_TIME = 2
FPS = 25


class BadWindows(LikenessError):
    """Windows that cannot cover a clip."""


@dataclass(frozen=True)
class WindowPlan:
    """How a clip is cut at each step; the defaults are the official ones.

    Attributes:
        window: latent frames of a window.
        shift: latent frames by which the windows move back before each further step; 0 keeps them in place.
    """

    window: int = WINDOW
    shift: int = SHIFT

    def __post_init__(self) -> None:
        if self.window < 1 or self.shift < 0:
            raise BadWindows(
                "windows of a clip",
                expected="a window of 1 latent frame or more and a shift of 0 or more",
                found=f"window {self.window}, shift {self.shift}",
                cure=f"go back to {WINDOW} and {SHIFT}",
            )

    def windows(self, total: int, step: int) -> tuple[tuple[int, ...], ...]:
        """The latent frames of every window at step ``step`` (from 0) of a clip of ``total`` latent frames.

        Every frame is in at least one window; a clip no longer than a window is one window.
        """
        if total <= self.window:
            return (tuple(range(total)),)
        moved = self.shift * step % self.window
        starts = range(-moved, total - moved, self.window)
        return tuple(tuple((start + place) % total for place in range(self.window)) for start in starts)


def audio_frames(window: Sequence[int], total: int) -> tuple[tuple[int, ...], ...]:
    """The four audio frames of each latent frame of a window, numbers in ``0 .. 4 * total - 1``.

    The window's first latent frame hears its last audio frame four times, wherever in the clip the window begins.
    Numbers beyond the audio mean silence (zeros before the projection).

    Args:
        window: latent frames, from `WindowPlan.windows`.
        total: latent frames of the clip.
    """
    around = RATE * total
    heard = [tuple((RATE * frame - back) % around for back in (3, 2, 1, 0)) for frame in window]
    return ((heard[0][-1],) * RATE, *heard[1:])


def fused(outputs: Sequence[Tensor], windows: Sequence[Sequence[int]], total: int, dim: int = LATENT_TIME) -> Tensor:
    """Put windows together; a frame that several windows hold is their mean.

    Args:
        outputs: for each window a tensor with its frames along ``dim``.
        windows: the frames of each, from `WindowPlan.windows`.
        total: frames of the clip.
        dim: the axis of time.

    Returns:
        The same with ``total`` frames.

    Raises:
        BadWindows: a frame that no window holds.
    """
    counts = torch.zeros(total)
    size = list(outputs[0].shape)
    size[dim] = total
    summed = outputs[0].new_zeros(size)
    for output, window in zip(outputs, windows, strict=True):
        places = torch.tensor(window)
        summed.index_add_(dim, places.to(output.device), output)
        counts.index_add_(0, places, torch.ones(len(window)))
    if not bool(counts.all()):
        missing = int((counts == 0).sum())
        raise BadWindows(
            "windows of a clip",
            expected=f"all {total} latent frames covered",
            found=f"{missing} in no window",
            cure="use the windows that the plan gives for this length",
        )
    shape = [1] * summed.ndim
    shape[dim] = total
    return summed / counts.to(summed).view(shape)


@dataclass(frozen=True)
class ClipLength:
    """The lengths that belong to a clip of so many video frames (at 25 a second).

    Attributes:
        frames: video frames that are wanted: the length of the audio.
        noise_frames: latent frames that the official code draws noise for.
        sampled_frames: latent frames that it denoises: one window, or all of the noise.
        kept_frames: latent frames that it decodes.
    """

    frames: int
    noise_frames: int
    sampled_frames: int
    kept_frames: int

    @property
    def video_length(self) -> int:
        """Video frames for the node that makes the empty latent."""
        return RATE * (self.sampled_frames - 1) + 1


def frames_of(samples: int, rate: int) -> int:
    """Whole video frames in so many audio samples (official: 640 samples of 16 kHz each)."""
    return samples * FPS // max(1, rate)


def clip_length(frames: int) -> ClipLength:
    """The official lengths of a clip.

    Raises:
        BadWindows: no frame.
    """
    if frames < 1:
        raise BadWindows("length of a clip", expected="1 frame or more", found=f"{frames}", cure="give some audio")
    # The official code appends silence: up to one window, else five frames.
    padded = WINDOW_FRAMES if frames <= WINDOW_FRAMES else frames + 5
    noise = (padded // (WINDOW_FRAMES - 1) + 1) * (WINDOW - 1) + 1
    long = padded > WINDOW_FRAMES
    return ClipLength(frames, noise, noise if long else WINDOW, padded // RATE + 1 if long else WINDOW)


def length_report(length: ClipLength) -> str:
    """The lengths in words, with a warning where the authors' code would stop."""
    windows = len(WindowPlan().windows(length.sampled_frames, 0))
    lines = [
        f"{length.frames} frames ({length.frames / FPS:.2f} s at {FPS} a second)",
        f"empty latent: length {length.video_length}, {length.sampled_frames} latent frames in {windows} windows",
        f"keep {length.kept_frames} latent frames and the first {length.frames} frames of the video",
    ]
    if length.frames > LIMIT_FRAMES:
        lines.append(f"longer than the {LIMIT_FRAMES} frames at which the authors' code stops: quality falls")
    return "\n".join(lines)
