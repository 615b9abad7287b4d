"""Three trainable adapters on a frozen latent diffusion model, after FaceChain-ImagineID (arXiv 2403.01901), part two.

The summaries name them and say what goes in and where it acts; their layers are this project's own choice:

* the textual inversion adapter turns the voice's identity and emotion into pseudo-words for the text encoder's input;
* the spatial conditional adapter turns a picture of the face's geometry into what is added to the UNet's four levels;
* the mask-guided blending adapter does the same from the frame before, its face masked out: texture and background.

The two that act on the UNet end in layers of zeros, so that training starts from the frozen model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Side of a pixel block that becomes one place of the latent.
PATCH = 8
LATENT = 4
PARTS = ("textual_inversion", "spatial_conditional", "mask_guided_blending")


@dataclass(frozen=True)
class FrameSizes:
    """Sizes of the three adapters.

    Attributes:
        identity, emotion: numbers in the voice's factors.
        words: pseudo-words.
        context: width of the text encoder's embeddings; 768 for SD1.5.
        levels: channels of the UNet's four levels.
        hidden: inside the adapters.
    """

    identity: int = 128
    emotion: int = 64
    words: int = 4
    context: int = 768
    levels: tuple[int, ...] = (320, 640, 1280, 1280)
    hidden: int = 128


class TextualInversionAdapter(nn.Module):
    """Factors of a voice to pseudo-words."""

    def __init__(self, sizes: FrameSizes) -> None:
        super().__init__()
        self.identity = nn.Linear(sizes.identity, sizes.hidden)
        self.emotion = nn.Linear(sizes.emotion, sizes.hidden)
        self.out = nn.Linear(sizes.hidden, sizes.words * sizes.context)
        self.context = sizes.context

    def forward(self, identity: Tensor, emotion: Tensor) -> Tensor:
        """Identity (B, Di) and emotion of a frame (B, De) to (B, words, context)."""
        hidden = functional.gelu(self.identity(identity) + self.emotion(emotion))
        return self.out(hidden).unflatten(1, (-1, self.context))


class LevelAdapter(nn.Module):
    """Maps at the latent's size to one map for each level of a UNet, each level half as large as the one before."""

    def __init__(self, channels: int, sizes: FrameSizes) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, sizes.hidden, 3, padding=1)
        count = len(sizes.levels)
        self.body = nn.ModuleList(nn.Conv2d(sizes.hidden, sizes.hidden, 3, padding=1) for _ in range(count))
        self.zero_out = nn.ModuleList(nn.Conv2d(sizes.hidden, level, 1) for level in sizes.levels)

    def levels(self, x: Tensor) -> list[Tensor]:
        """(B, channels, h, w) to maps (B, C_l, h / 2^l, w / 2^l)."""
        x = functional.silu(self.conv_in(x))
        found = []
        for number, (body, out) in enumerate(zip(self.body, self.zero_out, strict=True)):
            x = functional.avg_pool2d(x, 2, ceil_mode=True) if number else x
            x = x + functional.silu(body(x))
            found.append(out(x))
        return found


class SpatialConditionalAdapter(LevelAdapter):
    """A picture of the face's geometry (B, 3, 8 h, 8 w), 0..1, to maps for the UNet's levels."""

    def __init__(self, sizes: FrameSizes) -> None:
        super().__init__(3 * PATCH * PATCH, sizes)

    def forward(self, geometry: Tensor) -> list[Tensor]:
        return self.levels(functional.pixel_unshuffle(geometry, PATCH))


class MaskGuidedBlendingAdapter(LevelAdapter):
    """The frame before, its face cut out, to maps for the UNet's levels."""

    def __init__(self, sizes: FrameSizes) -> None:
        super().__init__(LATENT + 1, sizes)

    def forward(self, latent: Tensor, mask: Tensor) -> list[Tensor]:
        """Latent of the frame before (B, 4, h, w) and its face mask (B, 1, h, w), 1 where the face is."""
        return self.levels(torch.cat([latent * (1 - mask), mask], dim=1))


class FrameAdapters(nn.Module):
    """All three."""

    def __init__(self, sizes: FrameSizes) -> None:
        super().__init__()
        self.textual_inversion = TextualInversionAdapter(sizes)
        self.spatial_conditional = SpatialConditionalAdapter(sizes)
        self.mask_guided_blending = MaskGuidedBlendingAdapter(sizes)


def sizes_of(network: FrameAdapters) -> FrameSizes:
    """The network's sizes."""
    text, space = network.textual_inversion, network.spatial_conditional
    rows = space.state_dict()
    return FrameSizes(
        identity=text.identity.in_features,
        emotion=text.emotion.in_features,
        words=text.out.out_features // text.context,
        context=text.context,
        levels=tuple(int(rows[f"zero_out.{number}.weight"].shape[0]) for number in range(len(space.zero_out))),
        hidden=text.identity.out_features,
    )
