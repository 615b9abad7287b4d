"""Recognises FaceChain-FACT adapters: published files ("v1"), first generation ("v0"), and the trainer's raw layout."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import KeyMismatch
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...incomplete import incomplete
from ...layers.gated_attention import GatedSelfAttention
from ...report import DetectionReport
from ...tensor_info import kept_dtype
from .adapter import ENCODER, FactAdapter
from .arch import HEAD_DIM, LAYER_HEADS, FaceResampler, FactNetwork, FirstProjector, gated_layer
from .layout import (
    BLOCK_PATHS,
    OVERRIDE,
    PROCESSOR,
    PROJECTOR,
    first_projector_sizes,
    gated_widths,
    published_names,
    resampler_sizes,
)

Overrides = dict[str, tuple[Tensor, Tensor]]


class FactFamily(Family):
    """Gated self-attention between attn1 and attn2 of the 16 transformer blocks of SD1.5."""

    id = "fact"
    kind: Kind = "adapter"
    title = "FaceChain-FACT"
    folder = "face_adapters"
    links = (
        "https://github.com/modelscope/facechain",
        "https://modelscope.cn/models/yucheng1996/FaceChain-FACT",
    )
    licence = Licence(
        code="Apache-2.0",
        weights="not verified (the hub page states none that could be read)",
        commercial=None,
        note="its encoder TransFace-S was trained on MS1MV2, data for research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        if not header.with_prefix(PROJECTOR):
            return f"no {PROJECTOR}* (the projector)"
        shapes = _shapes(header)
        widths = gated_widths(shapes)
        if not widths:
            return "no gated layers (attn2.processor.* or fuser.*)"
        generation = "v0" if header.has(f"{PROJECTOR}net.weight") else "v1"
        inner = header.shape(f"{PROJECTOR}layers.0.0.to_q.weight")
        if generation == "v1" and inner and inner[0] % HEAD_DIM:
            return f"projector attention {inner[0]} wide, not a multiple of {HEAD_DIM}"
        uneven = [width for width in widths.values() if width % LAYER_HEADS]
        if uneven:
            return f"gated layer {uneven[0]} wide, not a multiple of {LAYER_HEADS} heads"
        return Match(self, generation, {"base": "sd15", **_estimates(header, widths)})

    def build(self, header: CheckpointHeader, match: Match) -> FactAdapter:
        shapes = _shapes(header)
        widths = gated_widths(shapes)
        _check_complete(header, widths)
        projector, input_shape = _projector(header, match)
        with torch.device("meta"):
            layers = {path: _layer(path, width, shapes) for path, width in widths.items()}
        network = FactNetwork(projector, {path: layer.to(_stored_dtype(header)) for path, layer in layers.items()})
        tensors, overrides = _split_overrides(published_names(load_tensors(header)), header.path.name)
        load_strictly(network, tensors, what=header.path.name)
        report = self.describe(header, match)
        if overrides:
            note = f"the file holds another norm2 for {len(overrides)} blocks of the base model, which is not applied"
            report = replace(report, notes=(*report.notes, note))
        # Published files carry no note and were trained with TransFace-S; trained ones name their encoder.
        encoder = header.metadata.get("encoder", ENCODER)
        return FactAdapter(report, header.digest, network, layers, input_shape, overrides, encoder)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        if match.variant != "v0":
            return report
        return replace(report, notes=(*report.notes, "first generation: takes one photo; 196 tokens in both branches"))


def _shapes(header: CheckpointHeader) -> dict[str, tuple[int, ...]]:
    return published_names({name: info.shape for name, info in header.tensors.items()})


def _check_complete(header: CheckpointHeader, widths: dict[str, int]) -> None:
    missing = [path for path in BLOCK_PATHS if path not in widths]
    if missing:
        found = f"{len(widths)}, without {', '.join(missing[:3])}{' and more' if len(missing) > 3 else ''}"
        raise incomplete(header, f"{len(BLOCK_PATHS)} gated layers", found)


def _projector(header: CheckpointHeader, match: Match) -> tuple[nn.Module, tuple[int | None, int]]:
    """The projector (float32, weights to come) and (T, C) of the encoder tokens it takes."""
    if match.variant == "v0":
        first = first_projector_sizes(header)
        # Not on the meta device: old files may lack the counter of its batch norm, which then keeps its zero.
        return FirstProjector(**asdict(first)), (first.tokens_in, first.width_in)
    sizes = resampler_sizes(header)
    with torch.device("meta"):
        return FaceResampler(**asdict(sizes)), (None, sizes.input_dim)


def _layer(path: str, width: int, shapes: dict[str, tuple[int, ...]]) -> GatedSelfAttention:
    linear = shapes.get(f"{path}{PROCESSOR}.linear.weight") or (width, 0)
    return gated_layer(width, linear[-1])


def _stored_dtype(header: CheckpointHeader) -> torch.dtype:
    """Dtype the layers keep."""
    return kept_dtype(next(info.dtype for name, info in header.tensors.items() if name.endswith(".attn.to_q.weight")))


def _split_overrides(tensors: dict[str, Tensor], what: str) -> tuple[dict[str, Tensor], Overrides]:
    """Take out ``attn2.processor.ln.*``: weight and bias of the base block's norm2, by block path."""
    marker = f"{PROCESSOR}{OVERRIDE}"
    found = {name: tensor for name, tensor in tensors.items() if marker in name}
    paths = {name.partition(marker)[0] for name in found}
    lacking = [p for p in paths if {f"{p}{marker}weight", f"{p}{marker}bias"} - set(found) or p not in BLOCK_PATHS]
    if lacking:
        raise KeyMismatch(
            what,
            expected="weight and bias for each replaced norm2 of one of the 16 blocks",
            found=f"an incomplete or unknown {lacking[0]}{marker}*",
            cure="use the publisher's unchanged file",
        )
    overrides = {path: (found[f"{path}{marker}weight"], found[f"{path}{marker}bias"]) for path in sorted(paths)}
    return {name: tensor for name, tensor in tensors.items() if name not in found}, overrides


def _estimates(header: CheckpointHeader, widths: dict[str, int]) -> dict[str, int]:
    """Layers, tokens per photo, and bytes: the projector in float32; the layers with one photo in both branches."""
    latents, net = header.shape(f"{PROJECTOR}latents"), header.shape(f"{PROJECTOR}net.weight")
    tokens = net[0] if net else latents[1] if latents and len(latents) == 3 else 0
    stored = _stored_dtype(header).itemsize
    projector = sum(info.count for info in header.with_prefix(PROJECTOR).values())
    layers = sum(info.count for info in header.tensors.values()) - projector
    keys_values = 2 * 2 * tokens * sum(widths.values())
    return {
        "layers": len(widths),
        "tokens": tokens,
        "encode_bytes": 4 * projector,
        "sample_bytes": stored * (layers + keys_values),
    }


FAMILY = FactFamily()
