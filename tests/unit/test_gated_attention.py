"""The gated layer, against the official form that attends over all tokens and throws the face rows away."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.layers import casting
from likeness_pack.adapters.layers.attention import attention
from likeness_pack.adapters.layers.gated_attention import GatedSelfAttention
from torch import Tensor, nn
from torch.nn.functional import gelu

WIDTH, CONTEXT, HEADS = 32, 12, 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(operations: object = nn) -> GatedSelfAttention:
    built = GatedSelfAttention(WIDTH, CONTEXT, HEADS, WIDTH // HEADS, operations)
    generator = torch.Generator().manual_seed(7)
    for parameter in built.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    built.alpha_attn.data, built.alpha_dense.data = torch.tensor(0.8), torch.tensor(-0.5)
    return built.eval().requires_grad_(False)


def official(gated: GatedSelfAttention, x: Tensor, face: Tensor, scale: float) -> Tensor:
    """Joint sequence, queries of all tokens, the first N rows kept."""
    joint = gated.norm1(torch.cat([x, gated.linear(face)], dim=1))
    q, k, v = (to(joint) for to in (gated.attn.to_q, gated.attn.to_k, gated.attn.to_v))
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
    weights = torch.softmax(q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5, dim=-1)
    attended = gated.attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))[:, : x.shape[1]]
    x = x + scale * torch.tanh(gated.alpha_attn) * attended
    value, gate = gated.ff.net[0].proj(gated.norm2(x)).chunk(2, dim=-1)
    return x + scale * torch.tanh(gated.alpha_dense) * gated.ff.net[2](value * gelu(gate))


@pytest.mark.parametrize("photos", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.5, -0.3])
def test_cached_face_keys_give_the_official_numbers(photos: int, scale: float) -> None:
    gated, x, face = layer(), noise(2, 10, WIDTH), noise(2, 16 * photos, CONTEXT, seed=1)
    got = gated(x, gated.face_keys_values(face), scale)
    expected = official(gated, x, face, scale)
    assert ((got - expected).abs() / (1 + expected.abs())).max() <= 1e-5
    assert not torch.allclose(got, x, atol=1e-2)


def test_strength_zero_changes_no_bit_and_no_input_is_touched() -> None:
    gated, x = layer(), noise(2, 10, WIDTH)
    kept = x.clone()
    face_kv = gated.face_keys_values(noise(2, 16, CONTEXT, seed=1))
    assert torch.equal(gated(x, face_kv, 0.0), x)
    gated(x, face_kv, 1.0)
    assert torch.equal(x, kept)


def test_one_face_row_serves_a_whole_batch() -> None:
    gated, x, face = layer(), noise(3, 10, WIDTH), noise(1, 16, CONTEXT, seed=1)
    one = gated(x, gated.face_keys_values(face), 0.7)
    each = gated(x, gated.face_keys_values(face.expand(3, -1, -1)), 0.7)
    assert torch.allclose(one, each, atol=1e-6)


def test_strength_may_differ_by_token() -> None:
    gated, x = layer(), noise(1, 10, WIDTH)
    face_kv = gated.face_keys_values(noise(1, 16, CONTEXT, seed=1))
    where = torch.tensor([0.0] * 4 + [1.0] * 6).view(1, 10, 1)
    mixed = gated(x, face_kv, where)
    assert torch.equal(mixed[:, :4], x[:, :4])
    assert torch.allclose(mixed[:, 4:], gated(x, face_kv, 1.0)[:, 4:], atol=1e-6)


def test_attention_is_asked_once_and_only_for_visual_queries() -> None:
    gated, x, calls = layer(), noise(2, 10, WIDTH), []

    def counted(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        calls.append((tuple(q.shape), tuple(k.shape), tuple(v.shape), heads))
        return attention(q, k, v, heads)

    gated(x, gated.face_keys_values(noise(2, 16, CONTEXT, seed=1)), 1.0, attention=counted)
    assert calls == [((2, 10, WIDTH), (2, 26, WIDTH), (2, 26, WIDTH), HEADS)]


@pytest.mark.parametrize("weights", [torch.float32, torch.float16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float16, 0.03), (torch.bfloat16, 0.3)])
def test_computes_in_the_dtype_of_the_base_model(weights: torch.dtype, dtype: torch.dtype, tolerance: float) -> None:
    reference, x, face = layer(), noise(2, 10, WIDTH), noise(2, 16, CONTEXT, seed=1)
    gated = layer(casting).to(weights)
    got = gated(x.to(dtype), gated.face_keys_values(face.to(dtype)), 0.5)
    assert got.dtype is dtype
    assert (got.float() - official(reference, x, face, 0.5)).abs().max() < tolerance


def test_names_are_the_checkpoints() -> None:
    names = {name: tuple(tensor.shape) for name, tensor in layer().state_dict().items()}
    assert names == {
        "alpha_attn": (),
        "alpha_dense": (),
        "linear.weight": (WIDTH, CONTEXT),
        "linear.bias": (WIDTH,),
        "attn.to_q.weight": (WIDTH, WIDTH),
        "attn.to_k.weight": (WIDTH, WIDTH),
        "attn.to_v.weight": (WIDTH, WIDTH),
        "attn.to_out.0.weight": (WIDTH, WIDTH),
        "attn.to_out.0.bias": (WIDTH,),
        "ff.net.0.proj.weight": (8 * WIDTH, WIDTH),
        "ff.net.0.proj.bias": (8 * WIDTH,),
        "ff.net.2.weight": (WIDTH, 4 * WIDTH),
        "ff.net.2.bias": (WIDTH,),
        "norm1.weight": (WIDTH,),
        "norm1.bias": (WIDTH,),
        "norm2.weight": (WIDTH,),
        "norm2.bias": (WIDTH,),
    }


def test_default_attention_is_scaled_dot_product_per_head() -> None:
    q, k, v = noise(2, 5, 8), noise(2, 7, 8, seed=1), noise(2, 7, 8, seed=2)
    got = attention(q, k, v, 2)
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 2.0, dim=-1)
        assert torch.allclose(got[..., head], weights @ v[..., head], atol=1e-6)
