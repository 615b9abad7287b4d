"""Windows of HunyuanVideo-Avatar (official hymm_sp, ``encode_audio``): ten steps of 20 ms around each video frame.

Four steps of zeros stand in front; frame f takes the steps 2f .. 2f + 9 of that at 25 fps, 4f .. 4f + 9 at 12.5 fps,
so original steps 2f - 4 .. 2f + 5. Two limits of the official program are not copied: it hears 30 seconds at most,
where this goes on with the next 30 seconds; and at 12.5 fps it asks for twice the frames the sound has.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ...audio_features import SAMPLE_RATE

FPS = (25.0, 12.5)
# More frames lose quality, its authors say; their program cuts here.
MOST_FRAMES = 400
WINDOW, LEAD = 10, 4


def frame_count(samples: int, fps: float) -> int:
    """Video frames of a sound: whole blocks of 640 samples at 25 fps, of 1280 at 12.5 fps."""
    return int(samples // (SAMPLE_RATE / fps))


def windows(states: Tensor, frames: int, fps: float) -> Tensor:
    """Steps (T, S, C) of 20 ms to windows (frames, 10, S, C); beyond the last step there are zeros.

    Args:
        states: all states, the last one after the final layer norm.
        frames: how many windows.
        fps: 25 or 12.5.
    """
    stride = round(50 / fps)
    needed = (frames - 1) * stride + WINDOW
    padded = functional.pad(states, (0, 0, 0, 0, LEAD, max(0, needed - LEAD - states.shape[0])))
    places = torch.arange(frames)[:, None] * stride + torch.arange(WINDOW)
    return padded[places]
