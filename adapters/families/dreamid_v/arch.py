"""The pose branch of DreamID-V: pictures to tokens, and a second attention in every self-attention of the model.

Follows ``dreamidv_wan/modules/projector.py`` and ``WanSelfAttention`` of bytedance/DreamID-V (Guo et al. 2026,
arXiv:2601.01425). Attribute names are the checkpoint's key names.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...layers import casting
from .layout import HEAD, POSE_CHANNELS, POSE_PICTURE, Sizes

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
EPSILON = 1e-6
THETA = 10000.0


class Projector(nn.Module):
    """Pose pictures to one token for each of the model's tokens.

    Args:
        width: channels of the model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_down = nn.ModuleList(nn.Conv1d(POSE_PICTURE, POSE_PICTURE, 3, stride=2, padding=1) for _ in range(2))
        self.convs = nn.Sequential(
            *_stage(POSE_PICTURE, 128),
            *_stage(128, 256),
            *_stage(256, POSE_CHANNELS),
            nn.Conv2d(POSE_CHANNELS, POSE_CHANNELS, 3, padding=1),
        )
        self.out = nn.ModuleDict({"proj": casting.Linear(4 * POSE_CHANNELS, width)})

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (1, 3, 4n + 1, H, W), 0..1, H and W multiples of 16, give tokens (1, (n+1) * H/16 * W/16, C).

        Frames pass one by one through the picture layers, so that memory does not grow with the clip.
        """
        for layer in self.time_down:
            assert isinstance(layer, nn.Conv1d)
            weight, bias = _like(layer.weight, pictures), _like(layer.bias, pictures)
            # A convolution over time at every pixel.
            pictures = functional.conv3d(pictures, weight[..., None, None], bias, (2, 1, 1), (1, 0, 0))
        return torch.cat([self._frame(pictures[:, :, number]) for number in range(pictures.shape[2])], dim=1)

    def _frame(self, picture: Tensor) -> Tensor:
        for layer in self.convs:
            if isinstance(layer, nn.Conv2d):
                picture = functional.conv2d(picture, _like(layer.weight, picture), _like(layer.bias, picture), 1, 1)
            else:
                picture = layer(picture)
        rows, channels, height, width = picture.shape
        patches = picture.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        tokens: Tensor = self.out["proj"](patches.reshape(rows, height // 2 * (width // 2), 4 * channels))
        return tokens


def _stage(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.SiLU(), nn.MaxPool2d(2)


def _like(parameter: Tensor | None, x: Tensor) -> Tensor:
    assert parameter is not None
    return parameter.to(device=x.device, dtype=x.dtype)


class RootMeanSquareNorm(nn.Module):
    """Divides (..., C) by its root mean square, times a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C), computed in float32."""
        return functional.rms_norm(x.float(), x.shape[-1:], eps=EPSILON).to(x.dtype) * _like(self.weight, x)


class PoseAttention(nn.Module):
    """What one self-attention adds: ``pose_gate * Attn(q, k_pose p, v_pose p)`` before the output projection.

    Args:
        width: channels of the model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.k_pose = casting.Linear(width, width)
        self.v_pose = casting.Linear(width, width)
        self.norm_k_pose = RootMeanSquareNorm(width)
        self.pose_gate = nn.Parameter(torch.zeros(1))

    def forward(self, q: Tensor, pose: Tensor, turn: Tensor, attend: Attend) -> Tensor:
        """The added part (B, N, C).

        Args:
            q: (B, N, C), normalised and turned by its positions, as the model's own attention gets it.
            pose: (1, N, C) tokens with zeros for the photo's tokens in front. Their rows become the layers' biases,
                not zero, as in training.
            turn: (1, N, 1, 64, 2, 2), see `turns`.
            attend: attention on (B, N, C).
        """
        k = self.norm_k_pose(self.k_pose(pose))
        k = turned(k.unflatten(-1, (-1, HEAD)), turn).flatten(-2)
        v = self.v_pose(pose)
        rows = q.shape[0]
        return attend(q, k.expand(rows, -1, -1), v.expand(rows, -1, -1)) * _like(self.pose_gate, q)


class PoseNetwork(nn.Module):
    """The whole branch under the names of the file.

    Args:
        sizes: of the model.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.project_pose = Projector(sizes.width)
        self.blocks = nn.ModuleList(nn.Module() for _ in range(sizes.layers))
        for block in self.blocks:
            block.self_attn = PoseAttention(sizes.width)

    def layer(self, number: int) -> PoseAttention:
        """What block ``number`` adds."""
        found = self.blocks[number].self_attn
        assert isinstance(found, PoseAttention)
        return found


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Heads (B, N, heads, D) turned by their positions (1, N, 1, D / 2, 2, 2), in the dtype of ``turn``."""
    pairs = x.to(turn.dtype).unflatten(-1, (-1, 1, 2))
    return (turn[..., 0] * pairs[..., 0] + turn[..., 1] * pairs[..., 1]).flatten(-2).type_as(x)


def turns(frames: int, height: int, width: int) -> Tensor:
    """Rotations (1, frames * height * width, 1, 64, 2, 2) of a grid of tokens: 22 pairs by time, 21 and 21 by place."""
    axes = torch.meshgrid(*(torch.arange(size).double() for size in (frames, height, width)), indexing="ij")
    side = 2 * (HEAD // 6)
    angles = [
        axis.reshape(-1, 1) * THETA ** -(torch.arange(0, pairs, 2).double() / pairs)
        for axis, pairs in zip(axes, (HEAD - 2 * side, side, side), strict=True)
    ]
    angle = torch.cat(angles, dim=1)
    cosine, sine = angle.cos(), angle.sin()
    rotation = torch.stack((cosine, -sine, sine, cosine), dim=-1).unflatten(-1, (2, 2))
    return rotation[None, :, None].float()
