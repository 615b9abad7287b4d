"""Which families are measured where, and why some are not: the one place that knows, for the run and for its tests."""

from __future__ import annotations

from collections.abc import Mapping

from . import families_dit, families_more, families_unet
from .families import NEEDS_NEWER, TITLES
from .networks import DETECTORS, ENCODERS

# Families with a step with and without them.
STEPPED = frozenset(
    {family for family, _ in TITLES.values()}
    | families_unet.BUILDERS.keys()
    | families_more.BUILDERS.keys()
    | families_dit.BUILDERS.keys()
)
# Families whose file changes no step of another model, by the topic that measures them.
ELSEWHERE: Mapping[str, str] = {
    "lafr": "restore",
    "musetalk": "lip-sync",
    "reswapper": "swap",
    "segface": "parse",
    **dict.fromkeys(DETECTORS, "detection"),
    **dict.fromkeys(ENCODERS, "encode"),
}
# Families without a figure.
UNMEASURED: Mapping[str, str] = {
    "imagineid_adapters": "no node samples with it; it is trained and read by the pack's tools",
    "imagineid": "it parts a voice once for each clip and is a file of the user's own training, of any size",
    "arcface_iresnet": "its network is TopoFR's, which is measured; only its files differ",
    "eva_clip": "it runs once for each photo of an identity, and takes seconds at its published size",
    "e4e": "it runs once for each photo of an identity, and takes seconds at its published size",
    "musiq": "it judges one picture at a time, since every picture has its own number of patches",
    "whisper": "it hears a clip once, in windows of 30 seconds, before any frame is drawn",
}


def reasons(newer_host: bool) -> dict[str, str]:
    """Why which family has no figure on a ComfyUI; those of Flux, Wan and HunyuanVideo need a newer one."""
    if newer_host:
        return dict(UNMEASURED)
    older = {
        name: f"this ComfyUI has no {model}; set COMFYUI_PATH and COMFYUI_PYTHON" for name, model in NEEDS_NEWER.items()
    }
    return {**UNMEASURED, **older}
