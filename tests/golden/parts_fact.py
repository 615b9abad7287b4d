"""FaceChain-FACT: encoder with projector, projectors alone, gated layers."""

from __future__ import annotations

import torch
from harness import Golden, part, resampler_sizes
from likeness_pack.adapters.families.fact.arch import FaceResampler, FirstProjector
from likeness_pack.adapters.layers import casting
from likeness_pack.adapters.layers.attention import attention
from likeness_pack.adapters.layers.gated_attention import GatedSelfAttention
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

PREFIX = "attn2.processor."


@part("fact_resampler")
def fact_resampler(golden: Golden) -> None:
    """The resampler on given tokens and on zeros."""
    projector = golden.fill(FaceResampler(**resampler_sizes(golden.metadata["hyper_parameters"])))
    shape = golden.metadata["inputs"]["face_tokens"]["shape"]
    golden.check("tokens", projector(golden.input("face_tokens", shape)))
    golden.check("neg_tokens", projector(torch.zeros(1, *shape[1:])))


@part("fact_v0_projector")
def fact_v0_projector(golden: Golden) -> None:
    """The first generation's projector; every fourth row is stored."""
    hyper = golden.metadata["hyper_parameters"]
    projector = FirstProjector(hyper["in_channel"], hyper["out_channel"], hyper["in_dim"], hyper["out_dim"])
    golden.fill(projector)
    shape = golden.metadata["inputs"]["face_tokens"]["shape"]
    golden.check("tokens", projector(golden.input("face_tokens", shape))[:, ::4])
    golden.check("neg_tokens", projector(torch.zeros(1, *shape[1:]))[:, ::4])


@part("fact_encoder")
def fact_encoder(golden: Golden) -> None:
    """Aligned image, encoder tokens, conditions of one and of two photos."""
    from likeness_pack.adapters.encoders.transface.arch import TransFace, TransFaceConfig

    hyper = golden.metadata["hyper_parameters"]
    vit = hyper["vit"]
    config = TransFaceConfig(
        width=vit["embed_dim"],
        depth=vit["depth"],
        patch=vit["patch_size"],
        embedding=vit["num_classes"],
        heads=vit["num_heads"],
        hidden=golden.keys["encoder_file"]["blocks.0.mlp.fc1.weight"][0],
    )
    encoder = TransFace(config).eval()
    encoder.load_state_dict(_filled(golden, golden.keys["encoder_file"]), strict=True)
    projector = FaceResampler(**resampler_sizes(hyper["resampler"]))
    filled = _filled(golden, golden.keys["adapter_file"])
    projector.load_state_dict({name.removeprefix("local_fac_prj."): value for name, value in filled.items()})
    image = (golden.input("face_image", golden.metadata["inputs"]["face_image"]["shape"]) * 0.5).clamp(-1, 1)
    tokens = encoder.tokens(image)
    golden.check("local_tokens", tokens[:, ::4, ::4])
    for name, count in (("one", 1), ("two", 2)):
        golden.check(f"pos_{name}", projector(tokens[:count]).flatten(0, 1)[None])
        golden.check(f"neg_{name}", projector(torch.zeros_like(tokens[:count])).flatten(0, 1)[None])


def _filled(golden: Golden, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: value.reshape(shapes[name]) for name, value in golden.filled(shapes).items()}


def _layer(golden: Golden, operations: object) -> GatedSelfAttention:
    hyper = golden.metadata["hyper_parameters"]
    layer = GatedSelfAttention(hyper["C"], hyper["context"], hyper["heads"], hyper["dim_head"], operations)
    weights = _filled(golden, golden.keys)
    layer.load_state_dict({n.removeprefix(PREFIX): w for n, w in weights.items() if n.startswith(PREFIX)}, strict=True)
    return layer.eval()


def _text_attention(golden: Golden, x: Tensor, text: Tensor) -> Tensor:
    """The base block's norm2 and attn2, which the stored processor output contains."""
    w = _filled(golden, golden.keys)
    heads = golden.metadata["hyper_parameters"]["heads"]
    q = linear(layer_norm(x, x.shape[-1:], w["norm2.weight"], w["norm2.bias"]), w["attn2.to_q.weight"])
    out = attention(q, linear(text, w["attn2.to_k.weight"]), linear(text, w["attn2.to_v.weight"]), heads)
    return linear(out, w["attn2.to_out.0.weight"], w["attn2.to_out.0.bias"])


def _gated(golden: Golden) -> None:
    inputs = golden.metadata["inputs"]
    hyper = golden.metadata["hyper_parameters"]
    hidden, text, face = (golden.input(name, inputs[name]["shape"]) for name in ("hidden", "text", "face"))
    per_photo = hyper["face_tokens_per_image"]
    step = -(-hyper["N"] // golden.tensors["s0_attn2"].shape[1])
    filled = _layer(golden, nn)
    opened = _layer(golden, casting)
    opened.alpha_attn.fill_(0.8)
    opened.alpha_dense.fill_(-0.5)
    cases = {
        "fill_s1": (filled, 1.0, per_photo),
        "a_s1": (opened, 1.0, per_photo),
        "a_s05": (opened, 0.5, per_photo),
        "a_s05_two": (opened, 0.5, 2 * per_photo),
        "s0": (filled, 0.0, per_photo),
    }
    for tag, (layer, scale, count) in cases.items():
        gated = layer(hidden, layer.face_keys_values(face[:, :count]), scale)
        if f"{tag}_fuser" in golden.tensors:
            golden.check(f"{tag}_fuser", gated[:, ::step])
        golden.check(f"{tag}_attn2", (_text_attention(golden, gated, text) + gated - hidden)[:, ::step])


@part("fact_attn_320")
def fact_attn_320(golden: Golden) -> None:
    """The gated layer of the outer blocks."""
    _gated(golden)


@part("fact_attn_640")
def fact_attn_640(golden: Golden) -> None:
    """The gated layer of the second level."""
    _gated(golden)


@part("fact_attn_1280")
def fact_attn_1280(golden: Golden) -> None:
    """The gated layer of the inner blocks."""
    _gated(golden)
