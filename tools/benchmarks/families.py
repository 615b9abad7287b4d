"""The adapter families under measure: a small model and file of each, applied as their nodes apply them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .sampling import Sampled, Stepped

LIMITS: Mapping[int, float] = {1: 1.10, 2: 1.15, 4: 1.25}


@dataclass(frozen=True)
class Case:
    """One family on one base model.

    Attributes:
        family: its id.
        subject: for the table.
        model: the plain MODEL.
        loaded: the adapter, as its loader gives it.
        file_bytes: bytes of the adapter's file.
        apply: MODEL for (people, strength, first identity), or what ``sampled`` takes in its place.
        sampled: what is sampled with it.
        people: how many identities are measured.
        limits: bounds of operations by people.
        beside: other MODELs that a user has anyway; their weights are none of the adapter's.
        given: what other nodes give for the identity of a number, made once and kept, as the host keeps it.
    """

    family: str
    subject: str
    model: Any
    loaded: Any
    file_bytes: int
    apply: Callable[[int, float, int], Any]
    sampled: Stepped
    people: tuple[int, ...] = (1, 2, 4)
    limits: Mapping[int, float] = field(default_factory=dict)
    beside: tuple[Any, ...] = ()
    given: Callable[[int], Any] = lambda number: None


NEEDS_NEWER: Mapping[str, str] = {
    "pulid_flux": "Flux",
    "hunyuan_avatar": "HunyuanVideo",
    "avatar_emotion": "HunyuanVideo",
    "dreamid_v": "Wan",
}
TITLES = {
    "faceid_sd15": ("ip_adapter_faceid", "FaceID, SD1.5"),
    "faceid_plus_sd15": ("ip_adapter_faceid", "FaceID Plus v2, SD1.5"),
    "faceid_sdxl": ("ip_adapter_faceid", "FaceID, SDXL"),
    "ip_adapter_sd15": ("ip_adapter", "IP-Adapter, SD1.5"),
    "ip_adapter_plus_sd15": ("ip_adapter", "IP-Adapter Plus Face, SD1.5"),
    "ip_adapter_full_face_sd15": ("ip_adapter", "IP-Adapter Full Face, SD1.5"),
    "ip_adapter_plus_sdxl": ("ip_adapter", "IP-Adapter Plus Face, SDXL"),
    "instantid": ("instantid", "InstantID, SDXL"),
    "pulid_v1": ("pulid_sdxl", "PuLID v1, SDXL"),
    "pulid_v1_1": ("pulid_sdxl", "PuLID v1.1, SDXL"),
    "id_animator": ("id_animator", "ID-Animator, SD1.5"),
    "w_plus": ("w_plus", "W+ adapter, SD1.5"),
    "fact": ("fact", "FACT, SD1.5"),
}
# The families whose term is one attention more in each layer; others say what they cost without a bound.
BOUNDED = frozenset(TITLES) - {"fact", "w_plus"}


def unet_cases(folder: Path, names: Sequence[str] = tuple(TITLES)) -> Iterator[Case]:
    """The families on SD1.5 or SDXL that `Apply Face Identity` applies."""
    from host_inprocess import conditioning, tiny_model
    from likeness_pack.adapters import registry
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_systems import BY_NAME

    for name in names:
        family, subject = TITLES[name]
        system, path = BY_NAME[name], folder / f"{name}.bin"
        system.write(path)
        size = path.stat().st_size
        loaded = LoadedAdapter(registry.load(path, kind="adapter", variant=system.variant))
        path.unlink()
        model = tiny_model(system.kind)
        given = functools.cache(system.identity)

        def apply(
            people: int, strength: float, first: int, model: Any = model, loaded: Any = loaded, given: Any = given
        ) -> Any:
            patched = model
            for number in range(people):
                options = ApplyOptions(strength=strength, lora_strength=0.0)
                patched = apply_identity(patched, loaded, given(first + number), options)
            return patched

        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
        sampled = Sampled(noise, conditioning(system.kind, seed=1), conditioning(system.kind, seed=2))
        limits = LIMITS if name in BOUNDED else {}
        yield Case(family, subject, model, loaded, size, apply, sampled, limits=limits, given=given)
