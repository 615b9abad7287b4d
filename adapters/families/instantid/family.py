"""Recognises InstantID's ``ip-adapter.bin`` and FaceID-Portrait-unnorm, which no tensor tells apart."""

from __future__ import annotations

from ...checkpoint import CheckpointHeader
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...incomplete import shape_of
from ..ip_adapter.layout import (
    attention_refusal,
    estimates,
    filled_network,
    needed_parts,
    resampler,
    resampler_refusal,
)
from ..ip_adapter_faceid.layout import BASES, parts_of
from .adapter import EMBEDDING_WIDTH, INSTANTID, PORTRAIT_UNNORM, InstantIDAdapter

VARIANTS = (INSTANTID, PORTRAIT_UNNORM)


class InstantIDFamily(Family):
    """Face tokens from a raw ArcFace embedding through a resampler and extra keys and values of every attn2 of SDXL.

    Wang et al. 2024, arXiv:2401.07519. InstantID's other half is a ControlNet, which the host loads itself.
    """

    id = "instantid"
    kind: Kind = "adapter"
    title = "InstantID"
    folder = "face_adapters"
    variants = VARIANTS
    links = (
        "https://github.com/instantX-research/InstantID",
        "https://huggingface.co/InstantX/InstantID",
        "https://huggingface.co/h94/IP-Adapter-FaceID",
    )
    licence = Licence(
        code="Apache-2.0",
        weights="Apache-2.0 (InstantID); non-commercial research (FaceID-Portrait-unnorm)",
        commercial=False,
        note="its embeddings come from insightface models, which are for non-commercial research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        parts = parts_of(header)
        if parts is None:
            return "no pair of parts image_proj and ip_adapter"
        reason = attention_refusal(parts) or resampler_refusal(parts)
        if reason is not None:
            return reason
        width = shape_of(parts.projection, "proj_in.weight")[1]
        if width != EMBEDDING_WIDTH:
            return f"a resampler of patches {width} wide, not of face embeddings of {EMBEDDING_WIDTH}"
        base, _ = BASES[parts.context]
        if base != "sdxl":
            return f"text context {parts.context} wide; these systems exist for SDXL (2048)"
        tokens = shape_of(parts.projection, "latents")[1]
        why = "the tensors of InstantID and FaceID-Portrait-unnorm have the same names and shapes"
        return Ambiguity(VARIANTS, why, {"base": base, "tokens": tokens, **estimates(parts, tokens)})

    def build(self, header: CheckpointHeader, match: Match) -> InstantIDAdapter:
        parts = needed_parts(header)
        network = filled_network(header, parts, resampler(parts))
        return InstantIDAdapter(self.describe(header, match), header.digest, network)


FAMILY = InstantIDFamily()
