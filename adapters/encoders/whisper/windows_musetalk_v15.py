"""Windows of MuseTalk v1.5 (official musetalk/utils/audio_processor.py): ten steps of 20 ms from each video frame on.

Zeros stand before and behind the sound. The official program cuts the frame rate to a whole number, so that 29.97 fps
runs as 29 and the mouth drifts away from the voice by a second in half a minute; and above 50 fps its zeros are too few
and it stops. `windows` takes the true rate and enough zeros unless it is told to follow the official rule; at whole
rates up to 50 both give the same numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

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
    stride, frames = STEPS_A_SECOND / rate, frame_count(samples, rate)
    states = states[: heard_steps(samples)]
    starts = torch.tensor([math.floor(number * stride) for number in range(frames)], dtype=torch.long)
    left = math.ceil(stride) * LEFT
    needed = int(starts[-1]) + WINDOW if frames else 0
    padded = functional.pad(states, (0, 0, 0, 0, left, max(0, needed - left - states.shape[0])))
    return padded[starts[:, None] + torch.arange(WINDOW)]
