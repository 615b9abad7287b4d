"""Recognises IP-Adapter files of CLIP pictures: plain, plus, plus-face, full-face; published and trainer's layout."""

from __future__ import annotations

import torch
from torch import nn

from ...checkpoint import CheckpointHeader
from ...family import Ambiguity, Family, Hyper, Kind, Licence, Match
from ...incomplete import shape_of
from ..ip_adapter_faceid.layout import BASES, Parts, parts_of
from .adapter import IPAdapter
from .arch import ImageProjection, PatchProjection
from .layout import (
    PATCH_WIDTHS,
    attention_refusal,
    estimates,
    filled_network,
    needed_parts,
    resampler,
    resampler_refusal,
)

VARIANTS = ("plain", "plus", "plus_face", "full_face")
# ViT-H/14 and ViT-bigG/14 at 224 px: a class token and 16 x 16 patches.
PATCHES = 257


class IPAdapterFamily(Family):
    """Image tokens of a CLIP vision model through extra keys and values of every attn2."""

    id = "ip_adapter"
    kind: Kind = "adapter"
    title = "IP-Adapter"
    folder = "face_adapters"
    variants = VARIANTS
    links = ("https://github.com/tencent-ailab/IP-Adapter", "https://huggingface.co/h94/IP-Adapter")
    licence = Licence(code="Apache-2.0", weights="Apache-2.0", commercial=True)

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        parts = parts_of(header)
        if parts is None:
            return "no pair of parts image_proj and ip_adapter"
        reason = attention_refusal(parts)
        if reason is not None:
            return reason
        if "proj.weight" in parts.projection:
            return self._plain(parts)
        if "proj.3.weight" in parts.projection:
            return self._full_face(parts)
        return _plus(parts)

    def build(self, header: CheckpointHeader, match: Match) -> IPAdapter:
        parts = needed_parts(header)
        projection, image_dim = _projection(parts)
        network = filled_network(header, parts, projection)
        return IPAdapter(self.describe(header, match), header.digest, network, image_dim)

    def _plain(self, parts: Parts) -> Match | str:
        shape = shape_of(parts.projection, "proj.weight")
        if len(shape) != 2 or shape[0] % parts.context or "norm.weight" not in parts.projection:
            return f"proj.weight {shape} gives no whole tokens of width {parts.context}"
        return Match(self, "plain", _hyper(parts, shape[0] // parts.context))

    def _full_face(self, parts: Parts) -> Match | str:
        first, last = (shape_of(parts.projection, f"proj.{number}.weight") for number in (0, 2))
        if len(first) != 2 or first[0] != first[1] or last != (parts.context, first[0]):
            return f"proj.0 {first} and proj.2 {last} are no projection of CLIP patches"
        return Match(self, "full_face", _hyper(parts, PATCHES))


def _plus(parts: Parts) -> Ambiguity | str:
    reason = resampler_refusal(parts)
    if reason is not None:
        return reason
    width = shape_of(parts.projection, "proj_in.weight")[1]
    if width == 512:
        return "a resampler of raw face embeddings: InstantID or FaceID-Portrait-unnorm"
    if width not in PATCH_WIDTHS:
        return f"a resampler of patches {width} wide; CLIP ViT-H has 1280, ViT-bigG 1664"
    hyper = _hyper(parts, shape_of(parts.projection, "latents")[1])
    why = "the tensors have the same names and shapes; plus-face was trained on face crops"
    return Ambiguity(("plus", "plus_face"), why, hyper)


def _hyper(parts: Parts, tokens: int) -> Hyper:
    return {"base": BASES[parts.context][0], "tokens": tokens, **estimates(parts, tokens)}


def _projection(parts: Parts) -> tuple[nn.Module, int]:
    """The projection in float32, weights to come, and the channels of the CLIP feature it takes."""
    plain, patch = (shape_of(parts.projection, name) for name in ("proj.weight", "proj.0.weight"))
    with torch.device("meta"):
        if plain:
            return ImageProjection(plain[1], plain[0] // parts.context, parts.context), plain[1]
        if patch:
            return PatchProjection(patch[0], parts.context), patch[1]
    return resampler(parts), shape_of(parts.projection, "proj_in.weight")[1]


FAMILY = IPAdapterFamily()
