"""Whisper's audio encoder (Radford et al. 2022, openai/whisper; Hugging Face transformers, models/whisper).

Module names are those of the Hugging Face layout. Every published size has heads of 64 channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .mel import BANDS

POSITIONS = 1500
HEAD_WIDTH = 64


class WhisperStates(NamedTuple):
    """All states of B pieces of sound of T = 1500 steps of 20 ms.

    Attributes:
        raw: (B, T, L + 1, C): the input of the first layer (convolutions and positions) and the output of each layer.
        final: (B, T, C): the last of them after the final layer norm.
    """

    raw: Tensor
    final: Tensor

    def normed(self) -> Tensor:
        """(B, T, L + 1, C) with the final layer norm on the last state, as Hugging Face returns its hidden states."""
        return torch.cat([self.raw[:, :, :-1], self.final[:, :, None]], dim=2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over (B, T, C); the keys have no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, HEAD_WIDTH)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """One pre-norm transformer layer over (B, T, C)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperEncoderNetwork(nn.Module):
    """Mel spectrograms (B, 80, 3000) to `WhisperStates`.

    Args:
        width: C, a multiple of 64; 384 in whisper-tiny.
        layers: L; 4 in whisper-tiny.
        inner: width inside a layer's MLP.
    """

    def __init__(self, width: int, layers: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(BANDS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(POSITIONS, width)
        self.layers = nn.ModuleList(EncoderLayer(width, inner) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> WhisperStates:
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return WhisperStates(torch.stack(states, dim=2), self.layer_norm(states[-1]))
