"""Recognises DreamFit adapters: the SD1.5 encoder and the Flux files (garment, garment with pose, try-on)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ...adapter import LowRank
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Hyper, Kind, Licence, Match
from ...incomplete import incomplete
from ...reference import ReferenceAdapter
from ...report import DetectionReport
from ...strict_load import group_by_prefix
from . import layout
from .adapter import Changes, DreamFitDiT, DreamFitUNet, WeightPart, reduced
from .arch import ReferenceProjections

UNET, DIT = "sd15", "flux"


class DreamFitFamily(Family):
    """A reference network made of the base model and LoRA, whose self-attention the denoiser reads."""

    id = "dreamfit"
    kind: Kind = "adapter"
    title = "DreamFit"
    folder = "face_adapters"
    links = ("https://github.com/bytedance/DreamFit", "https://huggingface.co/bytedance-research/Dreamfit")
    licence = Licence(
        code="Apache-2.0",
        weights="not verified (the hub page states none that could be read)",
        commercial=None,
        note="the Flux files need FLUX.1-dev, whose own licence is non-commercial",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        if any(layout.DIT_KEY.match(name) for name in header.tensors):
            return self._recognise_dit(header)
        names = layout.encoder_names(header.tensors)
        widths = _widths(header, names)
        if not widths:
            return "neither *.attn1.ref_to_k (the SD1.5 encoder) nor double_blocks.*.processor.ref_qkv_lora_* (Flux)"
        kept = sum(info.nbytes for name, info in header.tensors.items() if layout.is_adapter_name(names.get(name, "")))
        hyper: Hyper = {"base": UNET, "layers": len(layout.READ_BLOCKS), "encode_bytes": kept, "sample_bytes": 0}
        return Match(self, UNET, hyper)

    def _recognise_dit(self, header: CheckpointHeader) -> Match | str:
        double, single = layout.dit_depths(header.tensors)
        up = header.shape("double_blocks.0.processor.ref_qkv_lora_q.up.weight")
        if not single or up is None or len(up) != 2:
            return "no single blocks, or no double_blocks.0.processor.ref_qkv_lora_q.up.weight of two dimensions"
        kept = sum(info.nbytes for info in header.tensors.values())
        sizes: Hyper = {"layers": double + single, "double": double, "single": single, "width": up[0]}
        return Match(self, DIT, {"base": DIT, "encode_bytes": kept, "sample_bytes": 0, **sizes})

    def build(self, header: CheckpointHeader, match: Match) -> ReferenceAdapter:
        return self._build_dit(header, match) if match.variant == DIT else self._build_unet(header, match)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        if match.variant == DIT:
            note = "garment, pose and try-on files have the same tensors: choose the task that the file was made for"
        elif _has_base(header):
            note = "holds the encoder's base UNet too, which is used for the reference pass"
        else:
            note = "holds the adapter alone: connect plain SD1.5 to 'Encode Garment'"
        return replace(report, notes=(*report.notes, note))

    def _build_unet(self, header: CheckpointHeader, match: Match) -> DreamFitUNet:
        names = layout.encoder_names(header.tensors)
        adapter = {name: inner for name, inner in names.items() if layout.is_adapter_name(inner)}
        base = {name: inner for name, inner in names.items() if name not in adapter}
        if base and len(base) != layout.BASE_TENSORS:
            raise incomplete(header, f"{layout.BASE_TENSORS} tensors of the base UNet, or none", f"{len(base)}")
        tensors = {adapter[name]: value for name, value in load_tensors(reduced(header, adapter)).items()}
        changes, rest = _changes(header, layout.unet_targets(), tensors)
        with torch.device("meta"):
            network = ReferenceProjections(_widths(header, names)).to(next(iter(rest.values())).dtype)
        load_strictly(network, rest, what=header.path.name)
        context = changes[WeightPart("middle_block.1.transformer_blocks.0.attn2.to_k.weight")].down.shape[1]
        base_header = reduced(header, base) if base else None
        return DreamFitUNet(
            self.describe(header, match), header.digest, network, changes, int(context), base_header, base
        )

    def _build_dit(self, header: CheckpointHeader, match: Match) -> DreamFitDiT:
        double, single, width = (int(match.hyper[name]) for name in ("double", "single", "width"))
        targets = tuple(layout.dit_targets(double, single))
        wanted = {name: name for target in targets for name in layout.ends(target.source) if header.has(name)}
        changes, _ = _changes(header, targets, load_tensors(reduced(header, wanted)), width)
        report = self.describe(header, match)
        unread = set(header.tensors) - set(wanted) - layout.dead_names(double)
        if unread:
            note = f"{len(unread)} tensors of unknown use are left aside: {group_by_prefix(sorted(unread))}"
            report = replace(report, notes=(*report.notes, note))
        return DreamFitDiT(report, header.digest, changes, double, single, width)


def _has_base(header: CheckpointHeader) -> bool:
    return any(not layout.is_adapter_name(inner) for inner in layout.encoder_names(header.tensors).values())


def _widths(header: CheckpointHeader, names: dict[str, str]) -> dict[str, int]:
    """Width of each block with ``ref_to_k``, by its path, in the host's order."""
    shapes = {inner: header.shape(name) for name, inner in names.items() if inner.endswith(layout.REF_K)}
    found = {path: shapes.get(path + layout.REF_K) for path in layout.READ_BLOCKS}
    return {path: shape[0] for path, shape in found.items() if shape}


def _changes(
    header: CheckpointHeader, targets: Iterable[layout.Target], tensors: dict[str, Tensor], width: int = 0
) -> tuple[Changes, dict[str, Tensor]]:
    """The LoRA of every target, and the tensors that belong to none. Raises KeyMismatch for any that lacks."""
    targets, rest = tuple(targets), dict(tensors)
    missing = [name for target in targets for name in layout.ends(target.source) if name not in rest]
    if missing:
        count = f"{2 * len(targets)} LoRA tensors"
        raise incomplete(header, count, f"{len(missing)} missing: {group_by_prefix(missing)}")
    changes: dict[WeightPart, LowRank] = {}
    for target in targets:
        down, up = (rest.pop(name) for name in layout.ends(target.source))
        if up.ndim not in (2, 4) or down.ndim != up.ndim or up.shape[1] != down.shape[0]:
            found = f"up {tuple(up.shape)} and down {tuple(down.shape)} at {target.source}"
            raise incomplete(header, "LoRA pairs of one rank", found)
        # Every published factor is a power of two, so folding it in loses nothing in any dtype.
        scale = layout.DIT_SCALE if width else 1.0 if target.alpha is None else target.alpha / down.shape[0]
        part = WeightPart(target.weight)
        if target.part is not None:
            part = WeightPart(target.weight, target.part * width, width)
        changes[part] = LowRank(up * scale, down)
    return changes, rest


FAMILY = DreamFitFamily()
