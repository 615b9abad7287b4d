"""Convolutions whose weights follow the dtype and device of their input, and the group norm of diffusion models."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .casting import like_input


class Conv2d(nn.Conv2d):
    """A convolution that computes in its input's dtype: (B, in, H, W) -> (B, out, H', W')."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight = self.weight.to(device=input.device, dtype=input.dtype)
        return self._conv_forward(input, weight, like_input(self.bias, input))


class Conv1d(nn.Conv1d):
    """A convolution that computes in its input's dtype: (B, in, N) -> (B, out, N')."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight = self.weight.to(device=input.device, dtype=input.dtype)
        return self._conv_forward(input, weight, like_input(self.bias, input))


class Conv3d(nn.Conv3d):
    """A convolution that computes in its input's dtype: (B, in, T, H, W) -> (B, out, T', H', W')."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight = self.weight.to(device=input.device, dtype=input.dtype)
        return self._conv_forward(input, weight, like_input(self.bias, input))


class GroupNorm32(nn.GroupNorm):
    """32 groups, computed in float32 whatever the input is: (B, C, ...) -> (B, C, ...) in the input's dtype."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(32, channels, eps)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        x = input.float()
        weight, bias = like_input(self.weight, x), like_input(self.bias, x)
        return functional.group_norm(x, self.num_groups, weight, bias, self.eps).to(input)
