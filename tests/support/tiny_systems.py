"""Every family that patches attention, as a small file in its published layout with identities that fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common_adapters import save, tiny
from host_inprocess import Kind
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.identity import Identity
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.tools.standins.adapters import face_attention
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from tiny_adapters import widths, write_faceid, write_fact
from tiny_portraits import aligned_identity, w_plus_identity, write_animator, write_w_plus
from tiny_pulid import pulid_identity, sdxl_shapes, write

IMAGE = 20


@dataclass(frozen=True)
class System:
    """One family on one base model.

    Attributes:
        name: for the test's id.
        kind: the base model.
        write: writes the small file.
        identity: a person by number.
        variant: what a user would choose where tensors cannot tell.
        slot: where its patches stand: ``attn2`` or ``middle``.
    """

    name: str
    kind: Kind
    write: Callable[[Path], object]
    identity: Callable[[int], Identity]
    variant: str = "auto"
    slot: str = "attn2"

    def load(self, folder: Path) -> LoadedAdapter:
        """Write and load the file, as a user would. Nothing reads it later, and all of them take a gigabyte."""
        path = folder / f"{self.name}.bin"
        self.write(path)
        loaded = LoadedAdapter(registry.load(path, kind="adapter", variant=self.variant))
        path.unlink()
        return loaded


def picture_identity(seed: int) -> Identity:
    """CLIP features of one picture: hidden states as wide as ViT-H's, a short embedding."""
    generator = torch.Generator().manual_seed(300 + seed)
    features = {
        "image_tokens": torch.randn(1, 6, 1280, generator=generator),
        "image_tokens_zero": torch.randn(1, 6, 1280, generator=torch.Generator().manual_seed(99)),
        "image_embeds": torch.randn(1, 24, generator=generator),
    }
    return Identity("clip_vision", features, photos=(f"{seed}" * 64,))


def antelope_identity(seed: int) -> Identity:
    """A raw antelopev2 embedding."""
    return Identity("arcface_antelopev2", arcface_identity(seed).features, photos=("0" * 64,))


def plus_identity(seed: int) -> Identity:
    """An ArcFace embedding with CLIP patches of the face."""
    generator = torch.Generator().manual_seed(400 + seed)
    patches = torch.randn(2, 6, IMAGE, generator=generator)
    features = {**arcface_identity(seed).features, "image_tokens": patches[:1], "image_tokens_zero": patches[1:]}
    return Identity("arcface_buffalo_l", features, photos=("0" * 64,))


def _write_faceid_plus(path: Path) -> None:
    name = "image_proj."
    shapes = linear(f"{name}proj.0", 512, 64) | linear(f"{name}proj.2", 64, 4 * 768) | norm(f"{name}norm", 768)
    name += "perceiver_resampler."
    shapes |= linear(f"{name}proj_in", IMAGE, 768) | linear(f"{name}proj_out", 768, 768)
    shapes |= norm(f"{name}norm_out", 768) | perceiver(name, 768, 1, 768)
    save(path, shapes | face_attention(widths("SD15"), 768, 4))


def _pictures(base: str, layout: str) -> Callable[[Path], object]:
    return lambda path: save(path, tiny(base, layout))


def _pulid(version: str) -> Callable[[Path], object]:
    return lambda path: write(path, sdxl_shapes(version))


SYSTEMS: tuple[System, ...] = (
    System("faceid_sd15", "SD15", lambda path: write_faceid(path, "SD15"), arcface_identity),
    System("faceid_plus_sd15", "SD15", _write_faceid_plus, plus_identity, "plus_v2"),
    System("faceid_sdxl", "SDXL", lambda path: write_faceid(path, "SDXL"), arcface_identity),
    System("ip_adapter_sd15", "SD15", _pictures("sd15", "plain"), picture_identity),
    System("ip_adapter_plus_sd15", "SD15", _pictures("sd15", "plus"), picture_identity, "plus_face"),
    System("ip_adapter_full_face_sd15", "SD15", _pictures("sd15", "full_face"), picture_identity),
    System("ip_adapter_plus_sdxl", "SDXL", _pictures("sdxl", "plus"), picture_identity, "plus_face"),
    System("instantid", "SDXL", _pictures("sdxl", "instantid"), antelope_identity, "instantid"),
    System("pulid_v1", "SDXL", _pulid("v1"), pulid_identity),
    System("pulid_v1_1", "SDXL", _pulid("v1.1"), pulid_identity),
    System("id_animator", "SD15", write_animator, aligned_identity),
    System("w_plus", "SD15", write_w_plus, w_plus_identity),
    System("fact", "SD15", write_fact, transface_identity, slot="middle"),
)
BY_NAME: dict[str, System] = {system.name: system for system in SYSTEMS}


def patches_of(model: Any, slot: str) -> Any:
    """The table of attn2 patches by layer, or the list of patches between attn1 and attn2."""
    options = model.model_options["transformer_options"]
    return options["patches_replace"]["attn2"] if slot == "attn2" else options["patches"]["middle_patch"]
