"""What an application of HunyuanVideo-Avatar tells: who hears what, and the memory of a run before it begins."""

from __future__ import annotations

from typing import Any

import torch

from ..adapters.audio_features import AudioFeatures
from ..adapters.families.hunyuan_avatar.adapter import FPS
from ..adapters.families.hunyuan_avatar.windows import clip_length
from .hunyuan_avatar import AvatarOptions
from .loaded import LoadedAdapter

ROWS, LATENT, CELL = 2, 16, 8


def avatar_report(model: Any, loaded: LoadedAdapter, picture: Any, audio: AudioFeatures, options: AvatarOptions) -> str:
    """Lines about each character and the run.

    Args:
        model: the patched MODEL.
        loaded: the adapter.
        picture: latent of the character's picture (1, C, T, H, W).
        audio: one track for each character.
        options: what was applied.
    """
    lines = [_heard(number, audio, options) for number in range(audio.tracks)]
    spare = [n + 1 for n, mask in enumerate(options.masks) if mask is not None and n >= audio.tracks]
    lines += [f"mask {n}: no track for it, it is not used" for n in spare]
    if options.image_strength == 0.0:
        lines.append("the character picture is left out")
    if options.fps != FPS or audio.fps != FPS:
        lines.append(f"frame rate {options.fps:g}, sound by {audio.fps:g}: the model was made for {FPS:g}")
    shape = torch.as_tensor(picture).shape
    return "\n".join((*lines, memory_line(model, loaded, audio, (int(shape[-2]), int(shape[-1])))))


def _heard(number: int, audio: AudioFeatures, options: AvatarOptions) -> str:
    factor = options.strengths[number] if number < len(options.strengths) else 1.0
    mask = options.masks[number] if number < len(options.masks) else None
    where = "everywhere" if mask is None else "inside its mask"
    masks = 1 if mask is None or mask.ndim == 2 else len(mask)
    moving = f" ({masks} of them in time)" if masks > 1 else ""
    strength = options.strength * factor
    return f"character {number + 1}: {audio.seconds:.2f} s of sound, strength {strength:g}, {where}{moving}"


def memory_line(model: Any, loaded: LoadedAdapter, audio: AudioFeatures, size: tuple[int, int]) -> str:
    """What a run will need, before it runs, by the host's own estimate of the model.

    Args:
        model: the MODEL.
        loaded: the adapter.
        audio: whose length is that of the clip.
        size: height and width of the latent.
    """
    length = clip_length(max(1, audio.frames))
    frames = min(length.sampled_frames, clip_length(1).sampled_frames)
    beside = 0 if loaded.managed_steps is None else loaded.managed_steps.bytes
    weights = int(model.model_size()) + beside
    working = float(model.model.memory_required([ROWS, LATENT, frames, *size]))
    tokens = (frames + 1) * (size[0] // 2) * (size[1] // 2)
    clip = f"{size[1] * CELL} x {size[0] * CELL}, {audio.frames} frames, {frames} latent ones ({tokens} tokens) at once"
    return (
        f"memory: {weights / 1e9:.2f} GB of weights and about {working / 1e9:.2f} GB to work in ({clip}); "
        "ComfyUI keeps weights in main memory where the card has less"
    )
