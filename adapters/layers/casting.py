"""Linear and LayerNorm whose weights follow the dtype and device of their input.

A file's weights stay as they were published (usually float16) while the base model may run in float32, float16 or
bfloat16; nothing is copied where both already agree. A namespace with the same two names from the host may be given
instead wherever a module takes ``operations``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def like_input(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """A parameter in the dtype and on the device of ``x``; None stays None."""
    return None if parameter is None else parameter.to(device=x.device, dtype=x.dtype)


class Linear(nn.Linear):
    """A linear layer that computes in its input's dtype: (..., in) -> (..., out)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight = self.weight.to(device=input.device, dtype=input.dtype)
        return functional.linear(input, weight, like_input(self.bias, input))


class LayerNorm(nn.LayerNorm):
    """A layer norm that computes in its input's dtype: (..., C) -> (..., C)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name torch gives it)
        weight, bias = like_input(self.weight, input), like_input(self.bias, input)
        return functional.layer_norm(input, self.normalized_shape, weight, bias, self.eps)
