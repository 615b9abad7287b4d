"""Shapes of the layers that key lists are made of."""

from __future__ import annotations

from .fill import Shapes


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    """A linear layer."""
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def conv(name: str, inputs: int, outputs: int, side: int, bias: bool = True) -> Shapes:
    """A square convolution."""
    return {f"{name}.weight": (outputs, inputs, side, side)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    """A layer norm or group norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> Shapes:
    """A batch norm with its statistics."""
    statistics: Shapes = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return norm(name, width) | statistics | {f"{name}.num_batches_tracked": ()}


def perceiver(name: str, width: int, depth: int, inner: int) -> Shapes:
    """Perceiver layers as IP-Adapter has them; feed-forwards are four times as wide as the latents."""
    shapes: Shapes = {}
    for layer in range(depth):
        attend, forward = f"{name}layers.{layer}.0", f"{name}layers.{layer}.1"
        shapes |= norm(f"{attend}.norm1", width) | norm(f"{attend}.norm2", width)
        shapes |= linear(f"{attend}.to_q", width, inner, bias=False)
        shapes |= linear(f"{attend}.to_kv", width, 2 * inner, bias=False)
        shapes |= linear(f"{attend}.to_out", inner, width, bias=False)
        shapes |= norm(f"{forward}.0", width)
        shapes |= linear(f"{forward}.1", width, 4 * width, bias=False)
        shapes |= linear(f"{forward}.3", 4 * width, width, bias=False)
    return shapes
