"""A small transformer of HunyuanVideo's layout, and clips whose picture depends on the emotion."""

from __future__ import annotations

import torch
from likeness_pack.training.avatar_clips import ClipList, EmotionClip
from likeness_pack.training.avatar_dit import VideoDit
from likeness_pack.training.avatar_dit_sizes import DitSizes
from likeness_pack.training.avatar_emotion import AvatarBase, EmotionNetwork, EmotionOptions, clip_loss
from likeness_pack.training.seeds import generator_for
from torch import Tensor

SIZES = DitSizes(width=64, heads=2, double=4, single=2, text=16, pooled=8, axes=(8, 12, 12))
OPTIONS = {"batch": 1, "inner": 32, "heads": 2, "emotion_width": 32}


def filled(dit: VideoDit, seed: int = 0) -> VideoDit:
    """Weights of a seed; matrices keep the size of what they are given."""
    generator = generator_for(seed, "tiny dit")
    with torch.no_grad():
        for name, parameter in dit.named_parameters():
            if parameter.ndim > 1:
                limit = (3 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-limit, limit, generator=generator)
            elif name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1, generator=generator)
            else:
                parameter.fill_(1)
    return dit


def tiny_base(seed: int = 0, sizes: DitSizes = SIZES) -> AvatarBase:
    """A frozen transformer of random weights."""
    return AvatarBase(filled(VideoDit(sizes), seed))


def emotion_picture(emotion: int) -> Tensor:
    """The latent (16, 1, 8, 8) of an emotion's picture."""
    return torch.randn(16, 1, 8, 8, generator=generator_for(emotion, "picture"))


def clip(emotion: int, number: int, sizes: DitSizes = SIZES) -> EmotionClip:
    """A clip (16, 2, 4, 4) whose look is the emotion's, with some noise of its own."""
    look = torch.randn(16, 1, 4, 4, generator=generator_for(emotion, "look"))
    own = generator_for(emotion, "clip", number)
    words = generator_for("the same words for every clip")
    return EmotionClip(
        f"{emotion}-{number}",
        look + 0.3 * torch.randn(16, 2, 4, 4, generator=own),
        emotion_picture(emotion),
        torch.randn(5, sizes.text, generator=words),
        torch.ones(5),
        torch.randn(sizes.pooled, generator=words),
    )


def training_clips() -> ClipList:
    """Three clips of each of two emotions."""
    return ClipList([clip(emotion, number) for number in range(3) for emotion in range(2)])


def options(seed: int = 0) -> EmotionOptions:
    """Small sizes."""
    return EmotionOptions(seed=seed, **OPTIONS)


@torch.no_grad()
def held_out_loss(base: AvatarBase, network: EmotionNetwork | None, unseen: EmotionClip) -> float:
    """Mean loss on a clip over eight noises that training never draws, the same ones for every module."""
    losses = [clip_loss(base, network, unseen, generator_for(0, "held out", draw)) for draw in range(8)]
    return float(torch.stack(losses).mean())
