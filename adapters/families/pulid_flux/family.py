"""Recognises PuLID files for FLUX.1-dev."""

from __future__ import annotations

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Match
from ...incomplete import shape_of
from ...tensor_info import kept_dtype
from ..pulid_sdxl.family import LICENCE, build_encoder, encoder_tokens
from ..pulid_sdxl.id_former import IDFormer
from ..pulid_sdxl.layout import V1_1, Part, encoder_variant, wrong_former
from .adapter import PulidFluxAdapter
from .arch import HEAD_DIM, IdentityCrossAttention

ENCODER, ATTENTION = "pulid_encoder.", "pulid_ca."


class PulidFluxFamily(Family):
    """Cross-attention to identity tokens between the blocks of Flux."""

    id = "pulid_flux"
    kind: Kind = "adapter"
    title = "PuLID for Flux"
    folder = "face_adapters"
    links = (
        "https://github.com/ToTheBeginning/PuLID/blob/main/docs/pulid_for_flux.md",
        "https://huggingface.co/guozinan/PuLID",
    )
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | str:
        encoder, attention = header.with_prefix(ENCODER), header.with_prefix(ATTENTION)
        reason = _refusal(encoder, attention)
        if reason is not None:
            return reason
        modules = [info for name, info in attention.items() if name.endswith(".to_kv.weight")]
        tokens = encoder_tokens(encoder)
        once = sum(info.nbytes for name, info in attention.items() if ".to_kv." in name or ".norm1." in name)
        hyper: dict[str, int | str | float] = {
            "base": "flux",
            "tokens": tokens,
            "layers": len(modules),
            "encode_bytes": sum(info.nbytes for info in encoder.values()) + once,
            "sample_bytes": sum(info.nbytes for info in attention.values())
            - once
            + sum(2 * tokens * info.shape[0] * info.dtype.itemsize for info in modules),
        }
        return Match(self, None, hyper)

    def build(self, header: CheckpointHeader, match: Match) -> PulidFluxAdapter:
        part = header.with_prefix(ATTENTION)
        encoder = build_encoder(header.with_prefix(ENCODER))
        modules = _attentions(part, int(match.hyper["layers"]))
        for module, prefix in ((encoder, ENCODER), (modules, ATTENTION)):
            load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
        if not isinstance(encoder, IDFormer):
            raise TypeError(type(encoder).__name__)
        attentions = [module for module in modules if isinstance(module, IdentityCrossAttention)]
        return PulidFluxAdapter(self.describe(header, match), header.digest, encoder, attentions)


def _refusal(encoder: Part, attention: Part) -> str | None:
    if not encoder or not attention:
        return "no pair of parts pulid_encoder and pulid_ca"
    if encoder_variant(encoder) != V1_1:
        return "pulid_encoder is no IDFormer (latents, proj_out, id_embedding_mapping)"
    query, pairs = shape_of(attention, "0.to_q.weight"), shape_of(attention, "0.to_kv.weight")
    if len(query) != 2 or len(pairs) != 2 or query[0] % HEAD_DIM:
        return f"cross-attention of shapes {query} and {pairs}, not of heads of {HEAD_DIM}"
    return wrong_former(encoder)


def _attentions(part: Part, count: int) -> nn.ModuleList:
    inner, width = shape_of(part, "0.to_q.weight")
    id_width = shape_of(part, "0.to_kv.weight")[1]
    with torch.device("meta"):
        modules = nn.ModuleList(IdentityCrossAttention(width, id_width, inner // HEAD_DIM) for _ in range(count))
    return modules.to(kept_dtype(part["0.to_q.weight"].dtype))


FAMILY = PulidFluxFamily()
