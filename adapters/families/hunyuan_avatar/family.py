"""Recognises HunyuanVideo-Avatar: the whole checkpoint (bf16 or fp8), or its 94 added tensors alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Hyper, Kind, Licence, Match
from ...report import DetectionReport
from .adapter import HunyuanAvatarAdapter
from .arch import AvatarNetwork
from .layout import base_in, is_added, sizes_in

WHOLE, PARTS = "whole", "added"


class HunyuanAvatarFamily(Family):
    """HunyuanVideo that speaks: audio adapters, a character picture and motion beside the video model."""

    id = "hunyuan_avatar"
    kind: Kind = "adapter"
    title = "HunyuanVideo-Avatar"
    folder = "diffusion_models"
    links = (
        "https://github.com/Tencent-Hunyuan/HunyuanVideo-Avatar",
        "https://huggingface.co/tencent/HunyuanVideo-Avatar",
    )
    licence = Licence(
        code="Tencent Hunyuan Community License",
        weights="Tencent Hunyuan Community License",
        commercial=None,
        note="not granted in the EU, the UK and South Korea; above 100 M monthly users only with a separate licence",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        added = {name: info for name, info in header.tensors.items() if is_added(name)}
        hyper: Hyper = {
            "base": "hunyuan_video",
            "layers": sizes.adapters,
            "encode_bytes": sum(i.nbytes for name, i in added.items() if not _runs_in_steps(name)),
            "sample_bytes": sum(i.nbytes for name, i in added.items() if _runs_in_steps(name)),
        }
        return Match(self, WHOLE if base_in(header.tensors) else PARTS, hyper)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        note = "holds the 94 added tensors alone: connect a MODEL loaded from the whole checkpoint"
        if match.variant == WHOLE:
            base = sum(info.nbytes for name, info in header.tensors.items() if not is_added(name))
            note = (
                f"holds HunyuanVideo too ({base / 1e9:.2f} GB), trained for it: no other HunyuanVideo takes its place"
            )
        return replace(report, notes=(*report.notes, note))

    def build(self, header: CheckpointHeader, match: Match) -> HunyuanAvatarAdapter:
        sizes = sizes_in(header)
        if isinstance(sizes, str):
            raise TypeError(sizes)
        reduced = {name: raw for name, raw in header.raw_names.items() if is_added(name)}
        with torch.device("meta"):
            network = AvatarNetwork(sizes).to(header.tensors["audio_adapter_blocks.0.to_q.weight"].dtype)
        load_strictly(network, load_tensors(replace(header, raw_names=reduced)), what=header.path.name)
        return HunyuanAvatarAdapter(self.describe(header, match), header.digest, network, header)


def _runs_in_steps(name: str) -> bool:
    return name.startswith(("ref_in.", "before_proj.")) or any(end in name for end in (".norm2.", ".to_q.", ".to_out."))


FAMILY = HunyuanAvatarFamily()
