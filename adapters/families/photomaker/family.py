"""Recognises PhotoMaker v1 and v2 files by their ``id_encoder`` part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ...checkpoint import CheckpointHeader, TensorInfo, load_strictly, load_tensors
from ...family import Ambiguity, Family, Hyper, Kind, Licence, Match
from ...incomplete import needed_shape
from ...layers import casting
from ...report import DetectionReport
from ...tensor_info import kept_dtype
from .adapter import PhotoMakerAdapter
from .arch import IDEncoder, QFormerPerceiver
from .lora import low_rank_modules
from .vision import VisionTransformer

ENCODER, LORA = "id_encoder.", "lora_weights."
CLIP_HEAD, PERCEIVER_HEAD = 64, 128
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_POSITIONS = "vision_model.embeddings.position_embedding.weight"
_FUSE = "fuse_module.mlp1.fc1.weight"
_TOKENS = "qformer_perceiver.token_proj.2.weight"
_NEEDED = (_PATCHES, _POSITIONS, "visual_projection.weight", "visual_projection_2.weight", _FUSE)
_IGNORABLE = {"vision_model.embeddings.position_ids": "a counter that older CLIP files store"}
_PROJECTIONS = ("visual_projection", "visual_projection_2")
SDXL_CONTEXT = 2048

Part = Mapping[str, TensorInfo]


class PhotoMakerFamily(Family):
    """Identity tokens in the text conditioning of SDXL, and a LoRA of its UNet."""

    id = "photomaker"
    kind: Kind = "adapter"
    title = "PhotoMaker"
    folder = "face_adapters"
    variants = ("v1", "v2")
    links = (
        "https://github.com/TencentARC/PhotoMaker",
        "https://huggingface.co/TencentARC/PhotoMaker",
        "https://huggingface.co/TencentARC/PhotoMaker-V2",
    )
    licence = Licence(
        code="Apache-2.0",
        weights="Apache-2.0",
        commercial=True,
        note="v2 also needs embeddings of insightface's buffalo_l, which is for non-commercial research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        part = header.with_prefix(ENCODER)
        missing = [name for name in _NEEDED if len(_shape(part, name)) < 2]
        if missing:
            return f"no {ENCODER}{missing[0]}"
        width = _shape(part, "visual_projection.weight")[0] + _shape(part, "visual_projection_2.weight")[0]
        if width != SDXL_CONTEXT or _shape(part, _FUSE) != (width, 2 * width):
            return f"tokens {width} wide; PhotoMaker writes into SDXL's text conditioning of {SDXL_CONTEXT}"
        second = any(name.startswith("qformer_perceiver.") for name in part)
        tokens = 1
        if second:
            shape = _shape(part, _TOKENS)
            if len(shape) != 2 or shape[0] % width:
                return f"{_TOKENS} {shape} gives no whole tokens"
            tokens = shape[0] // width
        return Match(self, "v2" if second else "v1", _hyper(part, tokens))

    def build(self, header: CheckpointHeader, match: Match) -> PhotoMakerAdapter:
        part = header.with_prefix(ENCODER)
        network = _network(header, part)
        load_strictly(
            network,
            load_tensors(header, ENCODER),
            what=f"{header.path.name}, {ENCODER.rstrip('.')}",
            ignorable=_IGNORABLE,
        )
        changes = low_rank_modules(load_tensors(header, LORA), f"{header.path.name}, {LORA.rstrip('.')}")
        tokens = int(match.hyper["tokens"])
        return PhotoMakerAdapter(self.describe(header, match), header.digest, network, changes, tokens)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """As every family does; says where the file has no LoRA."""
        report = super().describe(header, match)
        if header.with_prefix(LORA):
            return report
        return replace(report, notes=(*report.notes, "no LoRA in this file: only the text is changed"))


def _network(header: CheckpointHeader, part: Part) -> IDEncoder:
    """The id_encoder with weights to come: the file's dtype, the picture's embedding in float32."""
    width, _, patch, _ = _needed(header, part, _PATCHES, 4)
    with torch.device("meta"):
        vision = VisionTransformer(
            width,
            _depth(part, "vision_model.encoder.layers."),
            width // CLIP_HEAD,
            _needed(header, part, "vision_model.encoder.layers.0.mlp.fc1.weight")[0],
            patch,
            _needed(header, part, _POSITIONS)[0],
            casting,
        )
        first, second = (_needed(header, part, f"{name}.weight")[0] for name in _PROJECTIONS)
        network = IDEncoder(vision, first, second, _perceiver(header, part, first + second), casting)
    network.to(kept_dtype(part[_FUSE].dtype))
    network.vision_model.embeddings.to(torch.float32)
    return network


def _perceiver(header: CheckpointHeader, part: Part, width: int) -> QFormerPerceiver | None:
    if _TOKENS not in part:
        return None
    hidden, embedding = _needed(header, part, "qformer_perceiver.token_proj.0.weight")
    prefix = "qformer_perceiver.perceiver_resampler."
    return QFormerPerceiver(
        embedding,
        hidden,
        _needed(header, part, _TOKENS)[0] // width,
        width,
        image_dim=_needed(header, part, f"{prefix}proj_in.weight")[1],
        depth=_depth(part, f"{prefix}layers."),
        heads=width // PERCEIVER_HEAD,
        feed_forward=_needed(header, part, f"{prefix}layers.0.1.1.weight")[0],
        operations=casting,
    )


def _depth(part: Part, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in part if name.startswith(prefix)})


def _shape(part: Part, name: str) -> tuple[int, ...]:
    info = part.get(name)
    return () if info is None else info.shape


def _needed(header: CheckpointHeader, part: Part, name: str, dimensions: int = 2) -> tuple[int, ...]:
    return needed_shape(header, part, name, dimensions, ENCODER)


def _hyper(part: Part, tokens: int) -> Hyper:
    """Base, tokens, and bytes: the encoder while encoding; two text conditionings while sampling."""
    return {
        "base": "sdxl",
        "tokens": tokens,
        "encode_bytes": sum(info.nbytes for info in part.values()),
        "sample_bytes": 2 * 77 * SDXL_CONTEXT * 4,
    }


FAMILY = PhotoMakerFamily()
