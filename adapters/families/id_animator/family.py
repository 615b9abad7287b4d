"""Recognises ``animator.ckpt`` of ID-Animator in both layouts its authors' loader reads."""

from __future__ import annotations

import torch
from torch import nn

from ...adapter import LowRank
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from ...incomplete import incomplete, needed_shape
from ...layers import casting
from ...layers.perceiver import Resampler
from ...report import DetectionReport
from ...tensor_info import kept_dtype
from .adapter import IDAnimatorAdapter
from .arch import HEAD_DIM, FaceMaps, IDAnimatorNetwork
from .layout import CONTEXT, LAYERS, ROLES, Part, Parts, parts_of, refusal


class LowRankWeights(nn.Module):
    """``up @ down`` of one linear layer: down (rank, in), up (out, rank)."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)


class IDAnimatorFamily(Family):
    """Learned facial queries over CLIP patches, face keys and values, and a LoRA, in every attn2 of SD1.5."""

    id = "id_animator"
    kind: Kind = "adapter"
    title = "ID-Animator"
    folder = "face_adapters"
    links = (
        "https://github.com/ID-Animator/ID-Animator",
        "https://huggingface.co/spaces/ID-Animator/ID-Animator",
    )
    licence = Licence(
        code="none in the authors' repository",
        weights="none stated",
        commercial=None,
        note="official strength 0.7 to 1 (0.8 in infer.py); made for AnimateDiff's motion module mm_sd_v15_v2",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        parts = parts_of(header)
        if parts is None:
            return "no pair of parts image_proj_model and adapter_modules (or image_proj and face_adapter)"
        reason = refusal(parts)
        if reason is not None:
            return reason
        return Match(self, None, {"base": "sd15", **_sizes(parts)})

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        """As for every family; tensors beside the two parts, which the authors' loader stumbles over, are named."""
        report = super().describe(header, match)
        parts = parts_of(header)
        if parts is None or not parts.others:
            return report
        facts = dict(report.__dict__)
        facts["notes"] = (*report.notes, f"not read: tensors under {', '.join(parts.others)}")
        return DetectionReport(**facts)

    def build(self, header: CheckpointHeader, match: Match) -> IDAnimatorAdapter:
        parts = parts_of(header)
        if parts is None:
            raise incomplete(header, "the resampler and the attention layers", "another file")
        resampler, attention = _resampler(header, parts.resampler), _attention(header, parts.attention)
        for module, prefix in zip((resampler, attention), parts.prefixes, strict=True):
            load_strictly(module, load_tensors(header, prefix), what=f"{header.path.name}, {prefix.rstrip('.')}")
        low_rank = _taken_apart(attention.requires_grad_(False))
        maps = [layer for layer in attention.values() if isinstance(layer, FaceMaps)]
        network = IDAnimatorNetwork(resampler, needed_shape(header, parts.resampler, "proj_in.weight")[1], maps)
        return IDAnimatorAdapter(self.describe(header, match), header.digest, network, CONTEXT, low_rank)


def _resampler(header: CheckpointHeader, part: Part) -> Resampler:
    """The resampler in float32, weights to come."""
    width, image_dim = needed_shape(header, part, "proj_in.weight")
    inner = needed_shape(header, part, "layers.0.0.to_q.weight")[0]
    with torch.device("meta"):
        return Resampler(
            input_dim=image_dim,
            width=width,
            output_dim=needed_shape(header, part, "proj_out.weight")[0],
            queries=part["latents"].shape[1],
            depth=len({name.split(".")[1] for name in part if name.startswith("layers.")}),
            heads=inner // HEAD_DIM,
            head_dim=HEAD_DIM,
            feed_forward=needed_shape(header, part, "layers.0.1.1.weight")[0],
        )


def _attention(header: CheckpointHeader, part: Part) -> nn.ModuleDict:
    """One module for each attn2 under the file's odd indices and names, in the file's dtype, weights to come."""
    rank = needed_shape(header, part, "1.to_q_lora.down.weight")[0]
    layers = nn.ModuleDict()
    with torch.device("meta"):
        for number in range(LAYERS):
            index = str(2 * number + 1)
            width = needed_shape(header, part, f"{index}.to_k_face.weight")[0]
            layer = FaceMaps(CONTEXT, width, casting)
            for role, name in ROLES.items():
                layer.add_module(name, LowRankWeights(CONTEXT if role in ("k", "v") else width, rank, width))
            layers[index] = layer
    return layers.to(kept_dtype(part["1.to_k_face.weight"].dtype))


def _taken_apart(attention: nn.ModuleDict) -> dict[tuple[int, str], LowRank]:
    """The LoRA as plain tensors, out of the layers: the host merges it into the base model."""
    low_rank: dict[tuple[int, str], LowRank] = {}
    for index, layer in attention.items():
        for role, name in ROLES.items():
            weights = layer.get_submodule(name)
            if isinstance(weights, LowRankWeights):
                low_rank[int(index), role] = LowRank(weights.up.weight.detach(), weights.down.weight.detach())
            delattr(layer, name)
    return low_rank


def _sizes(parts: Parts) -> dict[str, int]:
    """Tokens, layers, and bytes: float32 resampler with the face maps; keys and values of both branches."""
    tokens = parts.resampler["latents"].shape[1]
    maps = {n: info for n, info in parts.attention.items() if n.endswith(("to_k_face.weight", "to_v_face.weight"))}
    resampler = sum(info.count for info in parts.resampler.values())
    itemsize = parts.attention["1.to_k_face.weight"].dtype.itemsize
    return {
        "tokens": tokens,
        "layers": len(maps) // 2,
        "encode_bytes": 4 * resampler + sum(info.nbytes for info in maps.values()),
        "sample_bytes": itemsize * 2 * tokens * sum(info.shape[0] for info in maps.values()),
    }


FAMILY = IDAnimatorFamily()
