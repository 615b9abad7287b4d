"""PuLID: both identity encoders, the attention with its projections, the cross-attention of Flux."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from harness import Golden, part
from likeness_pack.adapters.families.pulid_flux.arch import HEAD_DIM, IdentityCrossAttention
from likeness_pack.adapters.families.pulid_sdxl.arch import IDEncoder, IdentityKeysValues
from likeness_pack.adapters.families.pulid_sdxl.id_former import IDFormer
from likeness_pack.adapters.families.pulid_sdxl.projection import Projection, identity_term
from likeness_pack.adapters.layers.attention import attention
from torch import Tensor
from torch.nn.functional import linear

SCALES = 5


def _shape(golden: Golden, name: str) -> list[int]:
    """A shape of the file's inputs, which may be told in words: ``"(1,2,1280) two images"``."""
    told: Any = golden.metadata["inputs"][name]
    if isinstance(told, str):
        told = [int(size) for size in told.split("(")[1].split(")")[0].split(",")]
    return list(told)


def _hidden(golden: Golden, prefix: str) -> list[Tensor]:
    shape = _shape(golden, f"{prefix}0..4")
    return [golden.input(f"{prefix}{scale}", shape) for scale in range(SCALES)]


def _zeros(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(tensor) for tensor in tensors]


@part("common_pulid_idencoder")
def common_pulid_idencoder(golden: Golden) -> None:
    """IDEncoder of v1."""
    hyper, keys = golden.metadata["hyper_parameters"], golden.keys
    hidden_width, id_dim = keys["body.0.weight"]
    image_dim = keys["mapping_0.0.weight"][1]
    encoder = IDEncoder(id_dim, image_dim, hidden_width, hyper["context_dim"], hyper["num_token"])
    golden.fill(encoder)
    id_cond, hidden = golden.input("id_cond", _shape(golden, "id_cond")), _hidden(golden, "vit_hidden")
    golden.check("tokens", encoder(id_cond, hidden))
    golden.check("tokens_uncond", encoder(torch.zeros_like(id_cond), _zeros(hidden)))


@part("common_pulid_idformer")
def common_pulid_idformer(golden: Golden) -> None:
    """IDFormer of v1.1 and Flux: one photo, two photos, none."""
    hyper, keys = golden.metadata["hyper_parameters"], golden.keys
    former = IDFormer(
        id_dim=keys["id_embedding_mapping.0.weight"][1],
        image_dim=keys["mapping_0.0.weight"][1],
        hidden=keys["mapping_0.0.weight"][0],
        dim=hyper["dim"],
        id_tokens=hyper["num_id_token"],
        queries=hyper["num_queries"],
        width=hyper["output_dim"],
        depth=hyper["depth"],
        heads=hyper["heads"],
        feed_forward=hyper["dim"] * hyper["ff_mult"],
    )
    golden.fill(former)
    id_cond, hidden = golden.input("id_cond", _shape(golden, "id_cond")), _hidden(golden, "vit_hidden")
    golden.check("tokens", former(id_cond, hidden), 1e-4)
    two = golden.input("id_cond2", _shape(golden, "id_cond2"))
    golden.check("tokens_2img", former(two, _hidden(golden, "vit_hidden2_")), 1e-4)
    golden.check("tokens_uncond", former(torch.zeros_like(id_cond), _zeros(hidden)), 1e-4)


def _projection(mode: Mapping[str, Any]) -> Projection:
    if mode["ortho_v2"]:
        return Projection.FIDELITY
    return Projection.STYLE if mode["ortho"] else Projection.NEUTRAL


@part("common_pulid_attn")
def common_pulid_attn(golden: Golden) -> None:
    """attn2 of SDXL with identity keys and values, in every mode: the written-out formula."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    text, tokens = golden.input("text", inputs["text"]), golden.input("id", inputs["id"])
    filled = golden.filled(golden.keys)
    for width in hyper["hidden"]:
        heads = hyper["heads"][str(width)]
        x = golden.input(f"hidden{width}", [width if size == "D" else size for size in inputs["hiddenD"]])
        w = {name.removeprefix(f"x{width}."): t for name, t in filled.items() if name.startswith(f"x{width}.")}
        q = linear(x, w["to_q.weight"])
        out = attention(q, linear(text, w["to_k.weight"]), linear(text, w["to_v.weight"]), heads)
        maps = IdentityKeysValues(tokens.shape[-1], width)
        maps.load_state_dict({f"{n}.weight": w[f"processor.{n}.weight"] for n in ("id_to_k", "id_to_v")})
        for name, mode in hyper["modes"].items():
            zeros = tokens.new_zeros(tokens.shape[0], mode["num_zero"], tokens.shape[-1])
            k, v = maps(torch.cat((tokens, zeros), dim=1))
            term = identity_term(out, q, k, v, heads, _projection(mode))
            got = linear(out + hyper["id_scale"] * term, w["to_out.0.weight"], w["to_out.0.bias"])
            golden.check(f"{name}_{width}", got)


@part("common_pulid_flux_ca")
def common_pulid_flux_ca(golden: Golden) -> None:
    """One cross-attention of PuLID for Flux."""
    hyper = golden.metadata["hyper_parameters"]
    module = IdentityCrossAttention(hyper["dim"], hyper["kv_dim"], hyper["heads"])
    assert hyper["dim_head"] == HEAD_DIM
    golden.fill(module)
    k, v = module.keys_values(golden.input("id", _shape(golden, "id")))
    golden.check("out", module(golden.input("img", _shape(golden, "img")), k, v))
