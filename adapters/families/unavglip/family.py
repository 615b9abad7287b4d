"""Recognises checkpoints of UnAvgLip's training code, with either form of its identity perceiver."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from ...report import DetectionReport
from ...tensor_info import kept_dtype
from ..ip_adapter_faceid.attention_layers import attention_layer, taken_apart
from .adapter import UnAvgLipAdapter, UnAvgLipNetwork
from .arch import projection_of
from .layout import ATTENTION, CONTEXT, LAYERS, PERCEIVER, PROJECTION, UNET, VARIANTS, Sizes, sizes_in


class UnAvgLipFamily(Family):
    """Face tokens and a LoRA for MuseTalk, so that its lip-sync keeps the person."""

    id = "unavglip"
    kind: Kind = "adapter"
    title = "UnAvgLip"
    folder = "face_adapters"
    variants = VARIANTS
    links = ("https://github.com/pigmeetsomebody/UnAvgLip", "https://arxiv.org/abs/2503.06397")
    licence = Licence(
        code="MIT",
        weights="that of whoever trained the file; its authors published none",
        commercial=None,
        note="its embeddings come from insightface's buffalo_l, for non-commercial research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        hyper: dict[str, int | str | float] = {
            "base": "musetalk",
            "tokens": sizes.tokens,
            "layers": LAYERS,
            **_estimates(header, sizes),
        }
        return Match(self, sizes.variant, hyper)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        notes = ["for MuseTalk v1, whose features and weights it was made for"]
        if match.variant == PERCEIVER:
            notes.append("identity_perceiver.py as repaired here: its published text cannot run")
        if header.with_prefix(UNET):
            notes.append("the UNet inside is not used: load MuseTalk's own file")
        return replace(report, notes=(*report.notes, *notes))

    def build(self, header: CheckpointHeader, match: Match) -> UnAvgLipAdapter:
        sizes = sizes_in(header)
        assert not isinstance(sizes, str)
        with torch.device("meta"):
            projection = projection_of(sizes)
            attention = _attention(sizes)
        attention = attention.to(kept_dtype(header.tensors[f"{ATTENTION}1.to_k_ip.weight"].dtype))
        for module, prefix in ((projection, PROJECTION), (attention, ATTENTION)):
            load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
        keys_values, low_rank = taken_apart(attention.requires_grad_(False))
        network = UnAvgLipNetwork(projection, keys_values)
        return UnAvgLipAdapter(self.describe(header, match), header.digest, network, low_rank)


def _attention(sizes: Sizes) -> nn.ModuleDict:
    """One module for each attention of the UNet, under the file's indices and names."""
    return nn.ModuleDict(
        {
            str(index): attention_layer(index, sizes.widths[index // 2], CONTEXT, sizes.rank)
            for index in range(2 * LAYERS)
        }
    )


def _estimates(header: CheckpointHeader, sizes: Sizes) -> dict[str, int]:
    """Bytes: float32 projection with the face maps; keys and values of one identity."""
    itemsize = header.tensors[f"{ATTENTION}1.to_k_ip.weight"].dtype.itemsize
    projection = sum(info.count for info in header.with_prefix(PROJECTION).values())
    maps = 2 * CONTEXT * sum(sizes.widths) * itemsize
    return {
        "encode_bytes": 4 * projection + maps,
        "sample_bytes": 2 * sizes.tokens * sum(sizes.widths) * itemsize,
    }


FAMILY = UnAvgLipFamily()
