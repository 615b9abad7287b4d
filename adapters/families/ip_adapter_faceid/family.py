"""Recognises IP-Adapter-FaceID files: plain, Plus, PlusV2, Portrait; SD1.5 and SDXL; published and trainer's layout."""

from __future__ import annotations

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...incomplete import incomplete, needed_shape
from ...tensor_info import kept_dtype
from .adapter import ENCODER, FaceIDAdapter, FaceIDNetwork
from .arch import EmbeddingProjection, PlusProjection
from .attention_layers import attention_layer, taken_apart
from .layout import BASES, PERCEIVER, Parts, parts_of, refusal

VARIANTS = ("plain", "plus", "plus_v2", "portrait")


class FaceIDFamily(Family):
    """Face tokens from an ArcFace embedding (Plus: and CLIP patches) through extra keys and values of every attn2."""

    id = "ip_adapter_faceid"
    kind: Kind = "adapter"
    title = "IP-Adapter-FaceID"
    folder = "face_adapters"
    variants = VARIANTS
    links = ("https://github.com/tencent-ailab/IP-Adapter", "https://huggingface.co/h94/IP-Adapter-FaceID")
    licence = Licence(
        code="Apache-2.0",
        weights="non-commercial research",
        commercial=False,
        note="its embeddings come from insightface models, which are for non-commercial research too",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        parts = parts_of(header)
        if parts is None:
            return "no pair of parts image_proj and ip_adapter"
        reason = refusal(parts)
        if reason is not None:
            return reason
        base, _ = BASES[parts.context]
        hyper: dict[str, int | str | float] = {"base": base, "tokens": parts.tokens, **_estimates(parts)}
        if parts.has_perceiver:
            why = "the tensors of Plus and PlusV2 have the same names and shapes"
            if base == "sdxl":
                why += "; the file published for SDXL is PlusV2"
            return Ambiguity(("plus", "plus_v2"), why, hyper)
        return Match(self, "plain" if parts.has_lora else "portrait", hyper)

    def build(self, header: CheckpointHeader, match: Match) -> FaceIDAdapter:
        parts = parts_of(header)
        if parts is None:
            raise incomplete(header, "the parts image_proj and ip_adapter", "another file")
        projection, attention = _projection(header, parts), _attention(header, parts)
        for module, prefix in zip((projection, attention), parts.prefixes, strict=True):
            load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
        keys_values, low_rank = taken_apart(attention.requires_grad_(False))
        network = FaceIDNetwork(projection, keys_values)
        # Published files carry no note and were trained with buffalo_l; trained ones name their encoder.
        encoder = header.metadata.get("encoder", ENCODER)
        return FaceIDAdapter(self.describe(header, match), header.digest, network, low_rank, encoder)


def _projection(header: CheckpointHeader, parts: Parts) -> EmbeddingProjection:
    """The projection in float32, weights to come."""
    hidden, embedding = needed_shape(header, parts.projection, "proj.0.weight")
    sizes = (embedding, hidden, parts.tokens, parts.context)
    with torch.device("meta"):
        if not parts.has_perceiver:
            return EmbeddingProjection(*sizes)
        layers = {name.split(".")[2] for name in parts.projection if name.startswith(f"{PERCEIVER}layers.")}
        return PlusProjection(
            *sizes,
            image_dim=needed_shape(header, parts.projection, f"{PERCEIVER}proj_in.weight")[1],
            depth=len(layers),
            feed_forward=needed_shape(header, parts.projection, f"{PERCEIVER}layers.0.1.1.weight")[0],
        )


def _attention(header: CheckpointHeader, parts: Parts) -> nn.ModuleDict:
    """One module for each attention of the base model, under the file's indices and names, weights to come."""
    _, layers = BASES[parts.context]
    rank = needed_shape(header, parts.attention, "1.to_q_lora.down.weight")[0] if parts.has_lora else None
    modules = nn.ModuleDict()
    with torch.device("meta"):
        for index in range(2 * layers):
            # attn1 (even) has the width of the attn2 that follows it.
            width = needed_shape(header, parts.attention, f"{index | 1}.to_k_ip.weight")[0]
            if index % 2 or rank:
                modules[str(index)] = attention_layer(index, width, parts.context, rank)
    return modules.to(kept_dtype(parts.attention["1.to_k_ip.weight"].dtype))


def _estimates(parts: Parts) -> dict[str, int]:
    """Layers, and bytes: float32 projection with the face maps; keys and values of one photo, both branches."""
    maps = {name: info for name, info in parts.attention.items() if name.endswith(("to_k_ip.weight", "to_v_ip.weight"))}
    projection = sum(info.count for info in parts.projection.values())
    itemsize = parts.attention["1.to_k_ip.weight"].dtype.itemsize
    keys_values = 2 * parts.tokens * sum(info.shape[0] for info in maps.values())
    return {
        "layers": len(maps) // 2,
        "encode_bytes": 4 * projection + sum(info.nbytes for info in maps.values()),
        "sample_bytes": itemsize * keys_values,
    }


FAMILY = FaceIDFamily()
