"""Identity, content and emotion of a voice, after FaceChain-ImagineID (CVPR 2024, arXiv 2403.01901).

The authors published neither code nor weights, and only summaries of the paper could be read. Kept of it: three modules
in the order identity, content, emotion, each a transformer over spectral features, later ones given what earlier ones
found, earlier ones frozen while later ones learn; identity from cepstra, once for a clip; content and emotion for each
frame. All sizes, the pooling and the losses are this project's own. The 3DMM coefficients, which the paper's modules
also give, need a basis and fitted videos that nobody may pass on; they are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...encoders.whisper.arch import HEAD_WIDTH, EncoderLayer
from ...encoders.whisper.mel import BANDS

# Spectral frames of 10 ms in a frame of features; features come 25 times a second.
STRIDE, FPS = 4, 25.0
# Cepstra after the first, which is loudness alone; their fine end is pitch, which the voice's depth needs.
CEPSTRA = 40
FACTORS = ("identity", "content", "emotion")


@dataclass(frozen=True)
class FactorSizes:
    """Sizes of the three modules.

    Attributes:
        width: inside every module, a multiple of 64.
        layers: of every module.
        identity, content, emotion: numbers in each factor.
    """

    width: int = 128
    layers: int = 2
    identity: int = 128
    content: int = 64
    emotion: int = 64


class Factors(NamedTuple):
    """Factors of B clips.

    Attributes:
        identity: (B, Di), of length 1.
        content: (B, F, Dc).
        emotion: (B, F, De).
    """

    identity: Tensor
    content: Tensor
    emotion: Tensor


class FactorModule(nn.Module):
    """A transformer over spectral frames.

    Args:
        channels: of the input.
        given: widths of what earlier modules found.
        width, layers: inside.
        out: channels of the output.
    """

    def __init__(self, channels: int, given: tuple[int, ...], width: int, layers: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.given = nn.ModuleList(nn.Linear(size, width) for size in given)
        self.layers = nn.ModuleList(EncoderLayer(width, 2 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)

    def hidden(self, x: Tensor, *given: Tensor) -> Tensor:
        """Spectral frames (B, channels, 4 F) to (B, F, width); each of ``given`` is (B, F or 1, size)."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(x)))).transpose(1, 2)
        for layer, value in zip(self.given, given, strict=True):
            x = x + layer(value)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        """As `hidden`, projected: (B, F, out)."""
        return self.out(self.hidden(x, *given))


class IdentityModule(FactorModule):
    """Who speaks: cepstra (B, 40, 4 F) to one vector (B, D) of length 1, by mean and deviation over the clip."""

    def __init__(self, width: int, layers: int, out: int) -> None:
        super().__init__(CEPSTRA, (), width, layers, out)
        self.out = nn.Linear(2 * width, out)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        hidden = self.hidden(x)
        deviation = (hidden.var(dim=1, correction=0) + 1e-6).sqrt()
        return functional.normalize(self.out(torch.cat([hidden.mean(dim=1), deviation], dim=1)), dim=1)


class VoiceFactors(nn.Module):
    """Log-mel spectrograms (B, 80, M) to `Factors` of F = M // 4 frames."""

    def __init__(self, sizes: FactorSizes) -> None:
        super().__init__()
        width, layers = sizes.width, sizes.layers
        self.identity = IdentityModule(width, layers, sizes.identity)
        self.content = FactorModule(BANDS, (sizes.identity,), width, layers, sizes.content)
        self.emotion = FactorModule(BANDS, (sizes.identity, sizes.content), width, layers, sizes.emotion)

    def forward(self, mel: Tensor) -> Factors:
        mel = whole_frames(mel)
        identity = self.identity(cepstra(mel))
        content = self.content(mel, identity[:, None])
        return Factors(identity, content, self.emotion(mel, identity[:, None], content))


def whole_frames(mel: Tensor) -> Tensor:
    """The spectrogram (..., M) without the last frames that fill no frame of features."""
    return mel[..., : mel.shape[-1] // STRIDE * STRIDE]


def cepstra(mel: Tensor) -> Tensor:
    """Log-mel spectrograms (B, 80, M) to mel-frequency cepstra 1 to 40, (B, 40, M): an orthonormal cosine transform."""
    bands = torch.arange(BANDS, dtype=mel.dtype, device=mel.device)
    numbers = torch.arange(1, CEPSTRA + 1, dtype=mel.dtype, device=mel.device)
    basis = math.sqrt(2 / BANDS) * torch.cos(math.pi / BANDS * numbers[:, None] * (bands + 0.5))
    return basis @ mel


def sizes_fit(sizes: FactorSizes) -> bool:
    """Whether a network of these sizes can be made."""
    smallest = min(sizes.width, sizes.layers, sizes.identity, sizes.content, sizes.emotion)
    return smallest >= 1 and sizes.width % HEAD_WIDTH == 0
