"""IP-Adapter-FaceID: projections, and the attention with LoRA and face keys."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from harness import Golden, part
from likeness_pack.adapters.families.ip_adapter_faceid.arch import EmbeddingProjection, FaceKeysValues, PlusProjection
from likeness_pack.adapters.layers.attention import attention
from torch import Tensor
from torch.nn.functional import linear, normalize


def _embedding(golden: Golden) -> Tensor:
    shape = golden.metadata["inputs"]["faceid"].split("(")[-1].rstrip(")").split(",")
    return normalize(golden.input("faceid", [int(size) for size in shape]), dim=-1)


def _plain(golden: Golden) -> None:
    hyper = golden.metadata["hyper_parameters"]
    embedding = _embedding(golden)
    hidden = golden.keys["proj.0.weight"][0]
    projection = EmbeddingProjection(
        hyper["id_embeddings_dim"], hidden, hyper["num_tokens"], hyper["cross_attention_dim"]
    )
    golden.fill(projection)
    golden.check("tokens", projection(embedding))
    golden.check("tokens_uncond", projection(torch.zeros_like(embedding[:1])))


def _plus(golden: Golden) -> None:
    hyper = golden.metadata["hyper_parameters"]
    embedding = _embedding(golden)
    width = hyper["cross_attention_dim"]
    projection = PlusProjection(
        hyper["id_embeddings_dim"],
        golden.keys["proj.0.weight"][0],
        hyper["num_tokens"],
        width,
        image_dim=hyper["clip_embeddings_dim"],
        depth=hyper["depth"],
        feed_forward=width * hyper["ff_mult"],
    )
    golden.fill(projection)
    patches = golden.input("clip_hidden", golden.metadata["inputs"]["clip_hidden"])
    none = golden.input("clip_hidden_uncond", golden.metadata["inputs"]["clip_hidden_uncond"])
    for name in golden.tensors:
        scale = float(name.split("_s")[-1]) if "_s" in name else None
        id_, image = (torch.zeros_like(embedding[:1]), none) if name.startswith("uncond") else (embedding, patches)
        golden.check(name, projection.refined(id_, image, scale))


@part("common_faceid_proj_sd15")
def common_faceid_proj_sd15(golden: Golden) -> None:
    """FaceID for SD1.5."""
    _plain(golden)


@part("common_faceid_proj_sdxl")
def common_faceid_proj_sdxl(golden: Golden) -> None:
    """FaceID for SDXL."""
    _plain(golden)


@part("common_faceid_plus_proj_sd15")
def common_faceid_plus_proj_sd15(golden: Golden) -> None:
    """FaceID-Plus and PlusV2 for SD1.5."""
    _plus(golden)


@part("common_faceid_plus_proj_sdxl")
def common_faceid_plus_proj_sdxl(golden: Golden) -> None:
    """FaceID-PlusV2 for SDXL."""
    _plus(golden)


def _patched(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """The base weight with its low-rank change merged, as the host applies it."""
    lora = f"processor.{name.split('.')[0]}_lora"
    return weights[f"{name}.weight"] + weights[f"{lora}.up.weight"] @ weights[f"{lora}.down.weight"]


@part("common_faceid_attn")
def common_faceid_attn(golden: Golden) -> None:
    """attn1 with LoRA; attn2 with LoRA and face keys and values (8 heads)."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    text, face = golden.input("text", inputs["text"]), golden.input("ip", inputs["ip"])
    filled = golden.filled(golden.keys)
    for width in hyper["hidden"]:
        shape = [width if size == "D" else size for size in inputs["hiddenD"]]
        x = golden.input(f"hidden{width}", shape)
        for kind, context in (("attn1", None), ("attn2", text)):
            prefix = f"{'s' if context is None else 'x'}{width}."
            w = {name.removeprefix(prefix): value for name, value in filled.items() if name.startswith(prefix)}
            q = linear(x, _patched(w, "to_q"))
            k, v = (linear(x if context is None else context, _patched(w, name)) for name in ("to_k", "to_v"))
            out = attention(q, k, v, 8)
            if context is not None:
                extra = FaceKeysValues(face.shape[-1], width)
                extra.load_state_dict({f"{n}.weight": w[f"processor.{n}.weight"] for n in ("to_k_ip", "to_v_ip")})
                out = out + hyper["ip_scale"] * attention(q, *extra(face), 8)
            golden.check(f"{kind}_{width}", linear(out, _patched(w, "to_out.0"), w["to_out.0.bias"]))
