"""The tensors that HunyuanVideo-Avatar adds to HunyuanVideo; module names are the official checkpoint's.

Facts: ``hymm_sp/modules/audio_adapters.py``, ``models_audio.py`` and ``embed_layers.py`` of
Tencent-Hunyuan/HunyuanVideo-Avatar (Chen et al. 2025, arXiv:2505.20156). Quirks that the weights depend on: an adapter
has one head as wide as its inner width; the reference picture's added tokens have a patch embedder of their own
(``ref_in``), its separate tokens the model's (``img_in``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from ...layers.casting import LayerNorm, Linear
from ...layers.casting_conv import Conv3d

# Audio: feature frames of a window, states of the encoder, and its channels (whisper-tiny).
WINDOW, STATES, CHANNELS = 10, 5, 384
AUDIO_TOKENS = 4
SINUSOID, PERIOD = 256, 10_000
# A motion is told by four numbers, each embedded to a quarter of the width.
BUCKETS = 4
PATCH = (1, 2, 2)


@dataclass(frozen=True)
class AvatarSizes:
    """Widths of the added parts.

    Attributes:
        width: channels of the DiT's tokens.
        inner: width of an adapter's one head.
        audio_hidden: width of the audio projection's hidden layers.
        audio_inputs: numbers in an audio window (``window * states * channels``).
        latent_channels: of the video's latent.
        adapters: number of audio adapters; number j stands behind double block ``2 j + 1``.
    """

    width: int = 3072
    inner: int = 1024
    audio_hidden: int = 1024
    audio_inputs: int = WINDOW * STATES * CHANNELS
    latent_channels: int = 16
    adapters: int = 10


def sinusoid(values: Tensor) -> Tensor:
    """Numbers (N,) to (N, 256) float32: cosines, then sines, of falling frequencies."""
    half = SINUSOID // 2
    frequencies = torch.exp(-math.log(PERIOD) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class NumberEmbedder(nn.Module):
    """A number to a vector: sinusoid, linear, SiLU, linear. (N,) -> (N, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(SINUSOID, width), nn.SiLU(), Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        """Embed numbers (N,) in float32."""
        first, _, last = self.mlp
        return torch.as_tensor(last(silu(first(sinusoid(values)))))


class PatchEmbed(nn.Module):
    """Latents (B, C, T, H, W) to tokens (B, T * H/2 * W/2, width), frames slowest; no norm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = Conv3d(channels, width, PATCH, stride=PATCH)

    def forward(self, latents: Tensor) -> Tensor:
        """Embed each 2 x 2 cells of each frame."""
        return torch.as_tensor(self.proj(latents)).flatten(2).transpose(1, 2)


class AudioProjection(nn.Module):
    """AudioProjNet2: each video frame's audio window to four tokens, (B, F, 10, 5, C) -> (B, F, 4, width).

    A window is flattened as it is: by time, then by state, then by channel.
    """

    def __init__(self, sizes: AvatarSizes) -> None:
        super().__init__()
        self.proj1 = Linear(sizes.audio_inputs, sizes.audio_hidden)
        self.proj2 = Linear(sizes.audio_hidden, sizes.audio_hidden)
        self.proj3 = Linear(sizes.audio_hidden, AUDIO_TOKENS * sizes.width)
        self.norm = LayerNorm(sizes.width)

    def forward(self, windows: Tensor) -> Tensor:
        """Project windows; silence (zeros) has tokens too, by the biases."""
        hidden = relu(self.proj2(relu(self.proj1(windows.flatten(2)))))
        return torch.as_tensor(self.norm(self.proj3(hidden).unflatten(-1, (AUDIO_TOKENS, -1))))


class AudioAdapter(nn.Module):
    """PerceiverAttentionCA: the video tokens of a latent frame ask its audio tokens; one head, no biases."""

    def __init__(self, sizes: AvatarSizes) -> None:
        super().__init__()
        self.norm1 = LayerNorm(sizes.width)
        self.norm2 = LayerNorm(sizes.width)
        self.to_q = Linear(sizes.width, sizes.inner, bias=False)
        self.to_kv = Linear(sizes.width, 2 * sizes.inner, bias=False)
        self.to_out = Linear(sizes.inner, sizes.width, bias=False)

    def keys_values(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., N, inner) of audio tokens (..., N, width)."""
        k, v = self.to_kv(self.norm1(audio)).chunk(2, dim=-1)
        return k, v

    def queries(self, video: Tensor) -> Tensor:
        """Queries (..., n, inner) of video tokens (..., n, width)."""
        return torch.as_tensor(self.to_q(self.norm2(video)))

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """What is added to video tokens (B, T, n, width) that hear audio tokens (B, T, N, width), before any mask."""
        k, v = self.keys_values(audio)
        return torch.as_tensor(self.to_out(attend(self.queries(video), k, v)))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with one head as wide as the tensors; logits and softmax in float32.

    Written out, because the head is wider than what fast kernels take, and a frame has 16 keys only.

    Args:
        q: (..., n, C).
        k, v: (..., N, C).
    """
    # Both sides are scaled, as the official code does against overflow in half precision.
    scale = q.shape[-1] ** -0.25
    logits = (q * scale) @ (k * scale).transpose(-1, -2)
    return logits.float().softmax(dim=-1).to(v) @ v


def grouped(tokens: Tensor) -> Tensor:
    """Audio tokens by latent frame: (B, 4 T - 3, 4, width) -> (B, T, 16, width).

    The first latent frame is one video frame alone and hears it four times; each other one hears its four.
    """
    return torch.cat((tokens[:, :1].expand(-1, 3, -1, -1), tokens), dim=1).unflatten(1, (-1, 4)).flatten(2, 3)


class AvatarNetwork(nn.Module):
    """Everything that the official checkpoint holds beyond HunyuanVideo, under its own names."""

    def __init__(self, sizes: AvatarSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.ref_in = PatchEmbed(sizes.latent_channels, sizes.width)
        self.before_proj = Linear(sizes.width, sizes.width)
        self.audio_proj = AudioProjection(sizes)
        self.motion_exp = NumberEmbedder(sizes.width // BUCKETS)
        self.motion_pose = NumberEmbedder(sizes.width // BUCKETS)
        self.fps_proj = NumberEmbedder(sizes.width)
        self.audio_adapter_blocks = nn.ModuleList(AudioAdapter(sizes) for _ in range(sizes.adapters))

    @property
    def adapters(self) -> list[AudioAdapter]:
        """The audio adapters in file order."""
        return [block for block in self.audio_adapter_blocks if isinstance(block, AudioAdapter)]

    def reference(self, latents: Tensor) -> Tensor:
        """What a reference picture adds to the video tokens: latents (B, C, T, H, W) to (B, T * n, width)."""
        return torch.as_tensor(self.before_proj(self.ref_in(latents)))

    def motion(self, expression: Tensor, pose: Tensor, fps: Tensor) -> Tensor:
        """What motion and frame rate add to the modulation vector: (B, 4), (B, 4), (B,) to (B, width)."""
        parts = zip((self.motion_exp, self.motion_pose), (expression, pose), strict=True)
        told = [embed(numbers.flatten()).view(len(numbers), -1) for embed, numbers in parts]
        return torch.as_tensor(told[0] + told[1] + self.fps_proj(fps))
