"""Recognises W+ adapter files: the published ``wplus_adapter*.bin`` and the trainer's dump."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...checkpoint import CheckpointHeader, TensorInfo, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...incomplete import incomplete, needed_shape
from ...tensor_info import kept_dtype
from .adapter import WPlusAdapter, WPlusNetwork
from .arch import HEADS, ROWS, ResidualMaps, WPlusMapper

# Published files, and raw dumps of the trainer (which hold the whole UNet beside them, under ``unet.``).
LAYOUTS = (("w_proj.", "wplus_adapter."), ("w_proj_model.", "adapter_modules."))
FIRST = "1.to_q_wplus.weight"
CONTEXT = 768
LAYERS = 16
Part = Mapping[str, TensorInfo]


class WPlusFamily(Family):
    """Tokens of a StyleGAN2 W+ code through a residual cross-attention in every attn2 of SD1.5."""

    id = "w_plus"
    kind: Kind = "adapter"
    title = "W+ adapter"
    folder = "face_adapters"
    links = ("https://github.com/csxmli2016/w-plus-adapter",)
    licence = Licence(
        code="S-Lab License 1.0",
        weights="S-Lab License 1.0, non-commercial",
        commercial=False,
        note="files of stage 1 (aligned faces; official strength 0.8) and stage 2 (in the wild; 1.0, off in the first "
        "seven of 30 steps) hold the same tensors; 'W+ Stage Settings' gives the official numbers of each",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        parts = _parts(header)
        if parts is None:
            return "no pair of parts w_proj and wplus_adapter"
        mapper, attention, _ = parts
        first, key = attention.get(FIRST), attention.get("1.to_k_wplus.weight")
        if first is None or key is None:
            return f"no {FIRST} (the residual attention)"
        if len(key.shape) != 2 or key.shape[1] != CONTEXT:
            return f"keys {key.shape}; the W+ adapter exists for SD1.5 (context {CONTEXT})"
        if "proj_3.weight" not in mapper:
            return "no proj_3 (the mapper of W+ codes)"
        return Match(self, None, {"base": "sd15", **_sizes(mapper, attention)})

    def build(self, header: CheckpointHeader, match: Match) -> WPlusAdapter:
        parts = _parts(header)
        if parts is None:
            raise incomplete(header, "the mapper and the attention layers", "another file")
        part, attention, prefixes = parts
        width, inputs = needed_shape(header, part, "proj_0.weight")
        with torch.device("meta"):
            mapper = WPlusMapper(inputs // ROWS[0], width)
            sizes = [needed_shape(header, attention, f"{2 * i + 1}.to_q_wplus.weight")[0] for i in range(LAYERS)]
            layers = nn.ModuleDict({str(2 * i + 1): ResidualMaps(CONTEXT, size) for i, size in enumerate(sizes)})
        layers.to(kept_dtype(attention[FIRST].dtype))
        for module, prefix in zip((mapper, layers), prefixes, strict=True):
            load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
        network = WPlusNetwork(mapper, [layer for layer in layers.values() if isinstance(layer, ResidualMaps)])
        return WPlusAdapter(self.describe(header, match), header.digest, network, CONTEXT)


def _parts(header: CheckpointHeader) -> tuple[Part, Part, tuple[str, str]] | None:
    for prefixes in LAYOUTS:
        mapper, attention = (header.with_prefix(prefix) for prefix in prefixes)
        if mapper and attention:
            return mapper, attention, prefixes
    return None


def _sizes(mapper: Part, attention: Part) -> dict[str, int]:
    """Tokens, layers, and bytes: float32 mapper with all maps; folded maps of both branches."""
    queries = [info for name, info in attention.items() if name.endswith("to_q_wplus.weight")]
    itemsize = attention[FIRST].dtype.itemsize
    return {
        "tokens": len(ROWS),
        "layers": len(queries),
        "encode_bytes": 4 * sum(info.count for info in mapper.values())
        + sum(info.nbytes for info in attention.values()),
        "sample_bytes": itemsize * 4 * len(ROWS) * HEADS * sum(info.shape[0] for info in queries),
    }


FAMILY = WPlusFamily()
