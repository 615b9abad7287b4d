"""Windows of MuseTalk v1.5 (official musetalk/utils/audio_processor.py): ten steps of 20 ms from each video frame on.

Zeros stand before and behind the sound. The official program cuts the frame rate to a whole number, so that 29.97 fps
runs as 29 and the mouth drifts away from the voice by a second in half a minute; and above 50 fps its zeros are too few
and it stops. `windows` takes the true rate and enough zeros unless it is told to follow the official rule; at whole
rates up to 50 both give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...audio_features import SAMPLE_RATE

STEPS_A_SECOND = 50
WINDOW, LEFT = 10, 2


def heard_steps(samples: int) -> int:
    """Steps of 20 ms that belong to the sound and not to its padding."""
    return math.floor(samples / SAMPLE_RATE * STEPS_A_SECOND)


def frame_count(samples: int, fps: float) -> int:
    """Whole video frames of a sound."""
    return math.floor(samples / SAMPLE_RATE * fps)


def windows(states: Tensor, samples: int, fps: float, official_rate: bool = False) -> Tensor:
    """Steps (T, S, C) of all segments, one after the other, to windows (frames, 10, S, C).

    Args:
        states: all states, the last one after the final layer norm.
        samples: length of the sound at 16 kHz.
        fps: video frames a second.
        official_rate: cut the rate to a whole number, as the official program does.
    """
    rate = float(int(fps)) if official_rate else fps
    return heard_at(states[: heard_steps(samples)], indices(range(frame_count(samples, rate)), rate))


def indices(numbers: Sequence[int], fps: float) -> Tensor:
    """(N, 10) the steps of the windows of video frames ``numbers``; those that no sound has are silence."""
    return around([math.floor(number * (STEPS_A_SECOND / fps)) for number in numbers], fps)


def around(starts: Sequence[int], fps: float) -> Tensor:
    """(N, 10) the steps of the windows of frames that are shown at the steps ``starts``."""
    return torch.tensor(list(starts))[:, None] + torch.arange(WINDOW) - math.ceil(STEPS_A_SECOND / fps) * LEFT


def heard_at(states: Tensor, steps: Tensor) -> Tensor:
    """States (T, S, C) at steps (N, 10): (N, 10, S, C), zeros before the first step and behind the last."""
    inside = (steps >= 0) & (steps < states.shape[0])
    return states[steps.clamp(0, max(0, states.shape[0] - 1))] * inside[..., None, None].to(states.dtype)
