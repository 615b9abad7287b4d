"""Windows of MuseTalk v1 and UnAvgLip (official musetalk/whisper/audio2feature.py): ten steps around each video frame.

Frame i takes the steps c - 4 .. c + 5 with c = int(50 i / fps); steps before the first and behind the last are those
two again. The official loop ends after the first window whose c exceeds the number of steps, which gives one or two
more windows than the sound has frames; `windows` cuts them off unless it is told to keep them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS_A_SECOND = 50
WINDOW, BEFORE = 10, 4


def official_count(steps: int, fps: float) -> int:
    """How many windows the official loop makes of ``steps`` steps of 20 ms."""
    number = 0
    while int(number * STEPS_A_SECOND / fps) <= steps:
        number += 1
    return number + 1


def indices(steps: int, frames: int, fps: float) -> Tensor:
    """(frames, 10) the steps of each window, within 0 .. steps - 1."""
    return around([int(number * STEPS_A_SECOND / fps) for number in range(frames)], steps)


def around(centres: Sequence[int], steps: int) -> Tensor:
    """(N, 10) the steps of the windows around ``centres``, within 0 .. steps - 1."""
    return (torch.tensor(list(centres))[:, None] + torch.arange(-BEFORE, WINDOW - BEFORE)).clamp(0, steps - 1)


def windows(states: Tensor, frames: int | None, fps: float) -> Tensor:
    """Steps (T, S, C), the last state without layer norm, to windows (frames, 10, S, C).

    Args:
        states: all states of the sound, its padding cut off.
        frames: how many windows; None for as many as the official loop makes.
        fps: video frames a second.
    """
    steps = states.shape[0]
    return states[indices(steps, official_count(steps, fps) if frames is None else frames, fps)]


def kept_steps(mel_frames: int) -> int:
    """Steps of 20 ms that a segment of ``mel_frames`` frames of 10 ms leaves: half of them, cut."""
    return mel_frames // 2
