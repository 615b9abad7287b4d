"""The perceiver blocks, against the formula written out token by token."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.adapters.layers import casting
from likeness_pack.adapters.layers.perceiver import FeedForward, PerceiverAttention, PerceiverLayers, Resampler
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.eval().requires_grad_(False)


def written_out(block: PerceiverAttention, context: Tensor, latents: Tensor) -> Tensor:
    """The definition in float64, one query and one head at a time."""
    block = block.double()
    context, latents = block.norm1(context.double()), block.norm2(latents.double())
    q, kv = block.to_q(latents), block.to_kv(torch.cat([context, latents], dim=1))
    inner = q.shape[-1]
    k, v = kv[..., :inner], kv[..., inner:]
    size = inner // block.heads
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            for h in range(block.heads):
                part = slice(h * size, (h + 1) * size)
                weights = torch.softmax(k[b, :, part] @ q[b, t, part] / math.sqrt(size), dim=0)
                out[b, t, part] = weights @ v[b, :, part]
    return block.to_out(out)


def test_attention_is_its_definition() -> None:
    block = randomised(PerceiverAttention(24, heads=2, head_dim=5))
    context, latents = noise(2, 7, 24), noise(2, 3, 24, seed=1)
    got = block(context, latents)
    expected = written_out(block, context, latents)
    assert got.shape == (2, 3, 24)
    assert torch.allclose(got.double(), expected, atol=1e-5)


def test_the_two_norms_are_not_exchangeable() -> None:
    block = randomised(PerceiverAttention(16, heads=2, head_dim=8))
    context, latents = noise(1, 5, 16), noise(1, 2, 16, seed=1)
    before = block(context, latents)
    block.norm1, block.norm2 = block.norm2, block.norm1
    assert not torch.allclose(before, block(context, latents), atol=1e-3)


def test_names_are_the_checkpoints() -> None:
    sizes = {"input_dim": 6, "width": 8, "output_dim": 10, "queries": 3, "heads": 2, "head_dim": 5, "feed_forward": 12}
    names = {name: tuple(tensor.shape) for name, tensor in Resampler(depth=1, **sizes).state_dict().items()}
    assert names == {
        "latents": (1, 3, 8),
        "proj_in.weight": (8, 6),
        "proj_in.bias": (8,),
        "proj_out.weight": (10, 8),
        "proj_out.bias": (10,),
        "norm_out.weight": (10,),
        "norm_out.bias": (10,),
        "layers.0.0.norm1.weight": (8,),
        "layers.0.0.norm1.bias": (8,),
        "layers.0.0.norm2.weight": (8,),
        "layers.0.0.norm2.bias": (8,),
        "layers.0.0.to_q.weight": (10, 8),
        "layers.0.0.to_kv.weight": (20, 8),
        "layers.0.0.to_out.weight": (8, 10),
        "layers.0.1.0.weight": (8,),
        "layers.0.1.0.bias": (8,),
        "layers.0.1.1.weight": (12, 8),
        "layers.0.1.3.weight": (8, 12),
    }


def test_feed_forward_has_the_exact_gelu() -> None:
    block = randomised(FeedForward(8, 16))
    x = noise(1, 4, 8)
    h = block[1](block[0](x))
    expected = block[3](h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))
    assert torch.allclose(block(x), expected, atol=1e-6)


def test_layers_add_residuals_and_keep_the_context() -> None:
    layers = randomised(PerceiverLayers(16, depth=2, heads=2, head_dim=8, feed_forward=32))
    context, latents = noise(1, 5, 16), noise(1, 2, 16, seed=1)
    kept = context.clone(), latents.clone()
    expected = latents
    for attend, forward in layers:
        expected = expected + attend(context, expected)
        expected = expected + forward(expected)
    assert torch.allclose(layers(context, latents), expected, atol=1e-6)
    assert torch.equal(context, kept[0]) and torch.equal(latents, kept[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision_follows_single(dtype: torch.dtype, tolerance: float) -> None:
    sizes = {"input_dim": 6, "width": 32, "output_dim": 8, "queries": 3, "depth": 2}
    module = randomised(Resampler(heads=2, head_dim=16, feed_forward=64, operations=casting, **sizes))
    x = noise(2, 9, 6)
    half = module(x.to(dtype))
    assert half.dtype is dtype
    assert (half.float() - module(x)).abs().max() < tolerance


def test_photos_do_not_mix() -> None:
    sizes = {"input_dim": 6, "width": 16, "output_dim": 8, "queries": 3, "depth": 1}
    module = randomised(Resampler(heads=2, head_dim=8, feed_forward=32, **sizes))
    x = noise(3, 9, 6)
    assert torch.allclose(module(x)[1:2], module(x[1:2]), atol=1e-6)
