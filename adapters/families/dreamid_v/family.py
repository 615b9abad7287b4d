"""Recognises DreamID-V's two files: with the pose branch, and the faster one without."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import KeyMismatch
from ...family import Ambiguity, Family, Hyper, Kind, Licence, Match
from ...report import DetectionReport
from ...strict_load import group_by_prefix
from ..restorerid.layout import narrowed
from . import layout
from .adapter import DreamIDVAdapter
from .arch import PoseNetwork

POSE, FASTER = "pose", "faster"


class DreamIDVFamily(Family):
    """A Wan 2.1 model that swaps the face of a clip."""

    id = "dreamid_v"
    kind: Kind = "adapter"
    title = "DreamID-V"
    folder = "diffusion_models"
    links = (
        "https://github.com/bytedance/DreamID-V",
        "https://huggingface.co/XuGuo699/DreamID-V",
        "https://arxiv.org/abs/2601.01425",
    )
    licence = Licence(
        code="Apache-2.0",
        weights="not verified (the hub page's tag could not be read)",
        commercial=None,
        note="a whole model: load it with 'Load DreamID-V'; VAE and text encoder are those of Wan 2.1",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        sizes = layout.sizes_in(header)
        if isinstance(sizes, str):
            return sizes
        pose = {name: info for name, info in header.tensors.items() if layout.is_pose(name)}
        hyper: Hyper = {
            "base": DreamIDVAdapter.base,
            "encode_bytes": 0,
            "sample_bytes": sum(info.nbytes for info in pose.values()),
            **asdict(sizes),
        }
        return Match(self, POSE if pose else FASTER, hyper)

    def describe(self, header: CheckpointHeader, match: Match) -> DetectionReport:
        report = super().describe(header, match)
        pose = "sees pose pictures" if match.variant == POSE else "takes no pose pictures"
        dead = sum(layout.is_dead(name) for name in header.tensors)
        left = f"; {dead} tensors of its cross-attentions are never read by the authors' code" if dead else ""
        return replace(report, notes=(*report.notes, f"{pose}{left}"))

    def build(self, header: CheckpointHeader, match: Match) -> DreamIDVAdapter:
        sizes = layout.Sizes(*(int(match.hyper[name]) for name in ("width", "feed_forward", "layers")))
        base = [name for name in header.tensors if not layout.is_pose(name) and not layout.is_dead(name)]
        _check(header, layout.dit_shapes(sizes), base)
        network = None
        if match.variant == POSE:
            with torch.device("meta"):
                network = PoseNetwork(sizes)
            pose = load_tensors(narrowed(header, filter(layout.is_pose, header.tensors)))
            network.to(pose[f"{layout.PROJECTOR}out.proj.weight"].dtype)
            load_strictly(network, pose, what=header.path.name)
        return DreamIDVAdapter(self.describe(header, match), header.digest, network, sizes, narrowed(header, base))


def _check(header: CheckpointHeader, expected: layout.Shapes, found: Iterable[str]) -> None:
    """Raise KeyMismatch unless the file has just these tensors in these shapes, before any of them is read."""
    differing = sorted(set(expected) ^ set(found))
    differing += [name for name, shape in expected.items() if header.shape(name) not in (None, shape)]
    if differing:
        raise KeyMismatch(
            header.path.name,
            expected=f"the {len(expected)} tensors of a Wan model in the shapes that its width tells",
            found=f"{len(differing)} missing, left over or of another shape: {group_by_prefix(differing)}",
            cure="use the publisher's unchanged file",
        )


FAMILY = DreamIDVFamily()
