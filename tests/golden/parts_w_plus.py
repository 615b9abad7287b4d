"""The W+ adapter: mapper, residual attention, e4e, its picture, FFHQ alignment, directions, StyleGAN2."""

from __future__ import annotations

import torch
from harness import Golden, part
from likeness_pack.adapters.families.w_plus.arch import ResidualMaps, WPlusMapper, residual
from likeness_pack.adapters.layers.attention import attention
from torch.nn.functional import linear


@part("w_plus_proj")
def w_plus_proj(golden: Golden) -> None:
    """Four tokens of a code, and of zeros."""
    hyper = golden.metadata["hyper_parameters"]
    mapper = WPlusMapper(hyper["embeddings_dim"], hyper["cross_attention_dim"], tuple(hyper["proj_index"]))
    assert {name: list(value.shape) for name, value in mapper.state_dict().items()} == golden.keys
    golden.fill(mapper)
    codes = golden.input("w", golden.metadata["inputs"]["w"])
    golden.check("tokens", mapper(codes))
    golden.check("tokens_zero", mapper(torch.zeros_like(codes[:1])))


@part("w_plus_attn")
def w_plus_attn(golden: Golden) -> None:
    """The layer's output with the folded residual attention."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    text, tokens = golden.input("text", inputs["text"]), golden.input("wtok", inputs["wtok"])
    filled, heads = golden.filled(golden.keys), hyper["heads"]
    for name in golden.tensors:
        width, scale = int(name[3:].split("_")[0]), float(name.split("scale")[1])
        prefix = f"h{width}."
        w = {key.removeprefix(prefix): value for key, value in filled.items() if key.startswith(prefix)}
        maps = ResidualMaps(tokens.shape[-1], width)
        maps.load_state_dict({n: w[f"processor.{n}"] for n in maps.state_dict()})
        x = golden.input(f"hidden{width}", inputs[f"hidden{width}"])
        q, k, v = linear(x, w["to_q.weight"]), linear(text, w["to_k.weight"]), linear(text, w["to_v.weight"])
        out = attention(q, k, v, heads)
        out = out + scale * residual(out, *maps(tokens, heads), heads)
        golden.check(name, linear(out, w["to_out.0.weight"], w["to_out.0.bias"]))
