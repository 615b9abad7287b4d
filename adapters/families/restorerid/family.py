"""Recognises and builds RestorerID files: the official checkpoint with its SD1.5, and the slim adapter file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...adapter import LowRank
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from ...incomplete import incomplete
from ...report import DetectionReport
from ...tensor_info import kept_dtype
from ..ip_adapter_faceid.arch import FaceKeysValues, PlusProjection
from .adapter import RestorerIDAdapter
from .layout import (
    ATTENTION_BLOCKS,
    CONTEXT,
    PROJECTION,
    RESIDUAL_BLOCKS,
    STRUCTURE,
    UNET,
    attention_name,
    has_base,
    is_addition,
    narrowed,
    refusal,
)
from .network import BlockModulations, RestorerNetwork
from .structure import StructureEncoder

LOG = logging.getLogger(__name__)
ENDS = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}
Tensors = Mapping[str, Tensor]


class RestorerIDFamily(Family):
    """Restores a damaged face after a reference: structure modulation, FaceID-Plus tokens, FIR-Adapter, on SD1.5."""

    id = "restorerid"
    kind: Kind = "adapter"
    title = "RestorerID"
    folder = "face_adapters"
    links = ("https://github.com/YingJiacheng/RestorerID", "https://huggingface.co/YingJiacheng/RestorerID")
    licence = Licence(
        code="Apache-2.0 (as its README says; derived from StableSR, S-Lab License 1.0)",
        weights="non-commercial (S-Lab License 1.0, IP-Adapter-FaceID, CreativeML OpenRAIL-M)",
        commercial=False,
        note="its embeddings come from insightface's buffalo_l, for non-commercial research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        reason = refusal(header)
        if reason is not None:
            return reason
        hyper: dict[str, int | str | float] = {
            "base": "sd15",
            "tokens": 4,
            "layers": len(RESIDUAL_BLOCKS) + len(ATTENTION_BLOCKS),
            **_estimates(header),
        }
        return Match(self, None, hyper)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        notes = [
            "with a whole SD1.5 inside: Load RestorerID Checkpoint gives its model, CLIP and VAE"
            if has_base(header)
            else "slim file: for any SD1.5 model"
        ]
        if not header.with_prefix(PROJECTION):
            notes.append("no projection inside: connect ip-adapter-faceid-plus_sd15.bin as faceid_plus")
        return replace(report, notes=(*report.notes, *notes))

    def build(self, header: CheckpointHeader, match: Match) -> RestorerIDAdapter:
        tensors = load_tensors(narrowed(header, filter(is_addition, header.tensors)))
        unet = _part(tensors, UNET)
        structure = _structure(header, _part(tensors, STRUCTURE))
        blocks = {name: _modulations(header, unet, name) for name in RESIDUAL_BLOCKS}
        keys_values = [_keys_values(header, unet, block) for block in ATTENTION_BLOCKS]
        low_rank = _low_rank(header, unet)
        _nothing_left(header, unet)
        network = RestorerNetwork(structure, blocks, keys_values, _projection(header, _part(tensors, PROJECTION)))
        report, constant = self.describe(header, match), network.constant_blocks()
        if constant:
            note = (
                f"the FIR-Adapter of {len(constant)} of {len(RESIDUAL_BLOCKS)} blocks is constant, blind to picture "
                "and reference (a defect of the published training code); computed by its exact shortcut"
            )
            LOG.warning("%s: %s", header.path.name, note)
            report = replace(report, notes=(*report.notes, note))
        return RestorerIDAdapter(report, header.digest, network, low_rank, CONTEXT, constant)


def _part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors under a prefix out of ``tensors``."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _shape(header: CheckpointHeader, tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != dimensions:
        raise incomplete(
            header, f"{name} of {dimensions} dimensions", "no such key" if tensor is None else f"{tuple(tensor.shape)}"
        )
    return tuple(tensor.shape)


def _loaded(header: CheckpointHeader, module: torch.nn.Module, tensors: Tensors, part: str) -> None:
    """Load strictly, keeping the file's dtype (float64 becomes float32)."""
    module.to(kept_dtype(next(iter(tensors.values())).dtype))
    load_strictly(module, tensors, what=f"{header.path.name}, {part}")


def _structure(header: CheckpointHeader, tensors: Tensors) -> StructureEncoder:
    channels, latents = _shape(header, tensors, "input_blocks.0.0.weight", 4)[:2]
    labels = _shape(header, tensors, "fea_tran.0.out_layers.3.weight", 4)[0]
    with torch.device("meta"):
        module = StructureEncoder(channels, labels, latents)
    _loaded(header, module, tensors, STRUCTURE.rstrip("."))
    return module


def _modulations(header: CheckpointHeader, unet: dict[str, Tensor], name: str) -> BlockModulations:
    tensors = {f"spade.{key}": tensor for key, tensor in _taken(unet, f"{name}.spade.").items()}
    tensors |= {f"IDBalance.{key}": tensor for key, tensor in _taken(unet, f"{name}.IDBalance.").items()}
    channels = _shape(header, tensors, "spade.param_free_norm.weight", 1)[0]
    hidden, labels = _shape(header, tensors, "spade.mlp_shared.0.weight", 4)[:2]
    context = _shape(header, tensors, "IDBalance.crossattn.to_k.weight", 2)[1]
    with torch.device("meta"):
        module = BlockModulations(channels, labels, hidden, context)
    _loaded(header, module, tensors, name)
    return module


def _keys_values(header: CheckpointHeader, unet: dict[str, Tensor], block: str) -> FaceKeysValues:
    prefix = f"{attention_name(block, 2)}."
    tensors = {f"{end}.weight": unet.pop(f"{prefix}{end}.weight", None) for end in ("to_k_ip", "to_v_ip")}
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    width, context = _shape(header, present, "to_k_ip.weight", 2)
    with torch.device("meta"):
        module = FaceKeysValues(context, width)
    _loaded(header, module, present, prefix.rstrip("."))
    return module


def _low_rank(header: CheckpointHeader, unet: dict[str, Tensor]) -> dict[str, LowRank]:
    found: dict[str, LowRank] = {}
    for block in ATTENTION_BLOCKS:
        for number in (1, 2):
            attention = attention_name(block, number)
            for lora, end in ENDS.items():
                tensors = _taken(unet, f"{attention}.{lora}.")
                up, down = (_shape(header, tensors, f"{side}.weight", 2) for side in ("up", "down"))
                if up[1] != down[0] or len(tensors) != 2:
                    raise incomplete(header, f"up and down of {attention}.{lora} of one rank", f"{up} and {down}")
                found[f"{attention}.{end}.weight"] = LowRank(tensors["up.weight"], tensors["down.weight"])
    return found


def _nothing_left(header: CheckpointHeader, unet: Tensors) -> None:
    if unet:
        raise incomplete(header, "only known layers", f"{len(unet)} further ones, such as {next(iter(unet))}")


def _projection(header: CheckpointHeader, tensors: Tensors) -> PlusProjection | None:
    """The projection in float32, or None where the file has none."""
    if not tensors:
        return None
    hidden, embedding = _shape(header, tensors, "proj.0.weight", 2)
    inner = _shape(header, tensors, "perceiver_resampler.proj_in.weight", 2)
    layers = {name.split(".")[2] for name in tensors if name.startswith("perceiver_resampler.layers.")}
    with torch.device("meta"):
        module = PlusProjection(
            embedding,
            hidden,
            _shape(header, tensors, "proj.2.weight", 2)[0] // inner[0],
            inner[0],
            image_dim=inner[1],
            depth=len(layers),
            feed_forward=_shape(header, tensors, "perceiver_resampler.layers.0.1.1.weight", 2)[0],
        )
    load_strictly(module, tensors, what=f"{header.path.name}, {PROJECTION.rstrip('.')}")
    return module


def _estimates(header: CheckpointHeader) -> dict[str, int]:
    """Bytes to encode (projection in float32, keys and values) and to sample (structure encoder and modulations)."""
    projection = sum(info.count for info in header.with_prefix(PROJECTION).values())
    unet = header.with_prefix(UNET)
    references = sum(info.nbytes for name, info in unet.items() if "_ip." in name)
    modulations = sum(info.nbytes for name, info in unet.items() if ".spade." in name or ".IDBalance." in name)
    structure = sum(info.nbytes for info in header.with_prefix(STRUCTURE).values())
    return {"encode_bytes": 4 * projection + references, "sample_bytes": modulations + structure}


FAMILY = RestorerIDFamily()
