"""Recognises PuLID files for SDXL: v1 and v1.1, published and community layout."""

from __future__ import annotations

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import KeyMismatch
from ...family import Family, Kind, Licence, Match
from ...incomplete import shape_of
from ...layers import casting
from ...tensor_info import kept_dtype
from .adapter import PulidAdapter, PulidNetwork
from .arch import SCALES, IDEncoder, IdentityKeysValues
from .id_former import HEAD_DIM, IDFormer
from .layout import ATTENTION_LAYERS, V1, V1_1, Part, Parts, former_depth, parts_of, refusal

LICENCE = Licence(
    code="Apache-2.0",
    weights="Apache-2.0",
    commercial=None,
    note="its embeddings come from insightface's antelopev2, which is for non-commercial research",
)


class PulidFamily(Family):
    """Identity tokens of an ArcFace embedding and EVA-CLIP features, through extra keys and values of every attn2."""

    id = "pulid_sdxl"
    kind: Kind = "adapter"
    title = "PuLID"
    folder = "face_adapters"
    variants = (V1, V1_1)
    links = ("https://github.com/ToTheBeginning/PuLID", "https://huggingface.co/guozinan/PuLID")
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | str:
        parts = parts_of(header)
        if parts is None:
            return "no pair of parts id_adapter and id_adapter_attn_layers (or image_proj and ip_adapter)"
        reason = refusal(parts)
        if reason is not None:
            return reason
        return Match(self, parts.variant, {"base": "sdxl", **_estimates(parts)})

    def build(self, header: CheckpointHeader, match: Match) -> PulidAdapter:
        parts = parts_of(header)
        if parts is None:
            raise KeyMismatch(
                header.path.name, expected="both parts of PuLID", found="another file", cure="load the file again"
            )
        encoder = build_encoder(parts.encoder)
        layout = parts.layout
        load_strictly(
            encoder, load_tensors(header, layout.encoder), what=f"{header.path.name}, {layout.encoder.rstrip('.')}"
        )
        attention = _attention(parts)
        tensors = load_tensors(header, layout.attention)
        ours = {
            name.replace(f".{layout.key}.", ".id_to_k.").replace(f".{layout.value}.", ".id_to_v."): tensor
            for name, tensor in tensors.items()
        }
        load_strictly(attention, ours, what=f"{header.path.name}, {layout.attention.rstrip('.')}")
        layers = [layer for layer in attention.values() if isinstance(layer, IdentityKeysValues)]
        return PulidAdapter(self.describe(header, match), header.digest, PulidNetwork(encoder, layers))


def build_encoder(part: Part) -> IDEncoder | IDFormer:
    """The identity encoder with the sizes and the dtype of these tensors, on the meta device."""
    with torch.device("meta"):
        encoder = _former(part) if "latents" in part else _encoder(part)
    return encoder.to(kept_dtype(part["mapping_0.0.weight"].dtype))


def _encoder(part: Part) -> IDEncoder:
    hidden, id_dim = shape_of(part, "body.0.weight")
    width = shape_of(part, "mapping_0.6.weight")[0]
    return IDEncoder(
        id_dim,
        shape_of(part, "mapping_0.0.weight")[1],
        hidden,
        width,
        shape_of(part, "body.6.weight")[0] // width,
        casting,
    )


def _former(part: Part) -> IDFormer:
    _, queries, dim = shape_of(part, "latents")
    hidden, image_dim = shape_of(part, "mapping_0.0.weight")
    return IDFormer(
        id_dim=shape_of(part, "id_embedding_mapping.0.weight")[1],
        image_dim=image_dim,
        hidden=hidden,
        dim=dim,
        id_tokens=shape_of(part, "id_embedding_mapping.6.weight")[0] // dim,
        queries=queries,
        width=shape_of(part, "proj_out")[1],
        depth=former_depth(part),
        heads=shape_of(part, "layers.0.0.to_q.weight")[0] // HEAD_DIM,
        feed_forward=shape_of(part, "layers.0.1.1.weight")[0],
        operations=casting,
    )


def _attention(parts: Parts) -> nn.ModuleDict:
    """The maps of each attn2 layer under the file's odd indices, weights to come."""
    modules = nn.ModuleDict()
    with torch.device("meta"):
        for number in range(ATTENTION_LAYERS):
            index = 2 * number + 1
            modules[str(index)] = IdentityKeysValues(parts.context, parts.width(index) or parts.width(1))
    return modules.to(kept_dtype(parts.attention[f"1.{parts.layout.key}.weight"].dtype))


def encoder_tokens(part: Part) -> int:
    """Identity tokens of one photo."""
    if "latents" in part:
        return shape_of(part, "latents")[1]
    return shape_of(part, "body.6.weight")[0] // shape_of(part, "mapping_0.6.weight")[0] + SCALES


def _estimates(parts: Parts) -> dict[str, int]:
    """Tokens and layers; bytes of all weights while encoding, and of one photo's keys and values, both branches."""
    keys = {name: info for name, info in parts.attention.items() if name.endswith(f".{parts.layout.key}.weight")}
    tokens = encoder_tokens(parts.encoder)
    itemsize = next(iter(keys.values())).dtype.itemsize
    everything = (*parts.encoder.values(), *parts.attention.values())
    return {
        "tokens": tokens,
        "layers": len(keys),
        "encode_bytes": sum(info.nbytes for info in everything),
        "sample_bytes": itemsize * 4 * tokens * sum(info.shape[0] for info in keys.values()),
    }


FAMILY = PulidFamily()
