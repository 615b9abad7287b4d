"""Every layout and variant of the first two families in the host's UNet: all layers run, the picture changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import save
from host_inprocess import ATTENTION_LAYERS, sample, tiny_model
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.families.fact.layout import TRAINER_PATHS
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.identity_ops import with_image_tokens
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.tools.standins.command import KINDS, write_standin
from module_folders import ModuleFolders
from tiny_adapters import write_fact
from unet_calls import call_unet, patched_calls

WIDTHS: dict[str, tuple[int, ...]] = {"SD15": (32, 64, 128, 128), "SDXL": (32, 64, 128)}


@pytest.fixture(scope="module")
def first_generation(module_folders: ModuleFolders) -> LoadedAdapter:
    path = write_standin("fact-v0", module_folders.mktemp("v0"), WIDTHS["SD15"])
    return LoadedAdapter(registry.load(path.rename(path.with_name("another name.bin"))))


def test_the_first_generation_of_fact(first_generation: LoadedAdapter) -> None:
    """196 tokens of one photo act in all sixteen layers, the same in positive and negative rows."""
    model = tiny_model("SD15")
    assert (first_generation.adapter.report.variant, first_generation.adapter.report.tokens) == ("v0", 196)
    patched = apply_identity(model, first_generation, transface_identity(), ApplyOptions(strength=0.7))
    assert [patched_calls(patched, "SD15", rows) for rows in ((1, 0), (0, 1), (0,))] == [16, 16, 16]
    shown, plain = sample(patched), sample(model)
    assert torch.isfinite(shown).all()
    assert (shown - plain).abs().max() > 1e-3
    off = apply_identity(model, first_generation, transface_identity(), ApplyOptions(strength=0.0))
    assert torch.equal(sample(off), plain)


def test_the_first_generation_takes_one_photo(first_generation: LoadedAdapter) -> None:
    with pytest.raises(IdentityMismatch, match="one photo"):
        apply_identity(tiny_model("SD15"), first_generation, transface_identity(photos=2), ApplyOptions())


def test_the_trainers_layout_of_fact_is_the_published_one(tmp_path: Path) -> None:
    """The same numbers under the trainer's names give the same picture, bit for bit."""
    published = write_fact(tmp_path / "published.ckpt")
    trainer_of = {name: trainer for trainer, name in TRAINER_PATHS.items()}
    raw = {}
    for name, tensor in torch.load(published, weights_only=True).items():
        path, found, rest = name.partition(".transformer_blocks.0.attn2.processor.")
        raw[f"{trainer_of[path]}.transformer_blocks.0.fuser.{rest}" if found else name] = tensor
    torch.save(raw, tmp_path / "raw.ckpt")
    model = tiny_model("SD15")
    first, second = (
        call_unet(apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=0.5)), "SD15", (1, 0))
        for loaded in (LoadedAdapter(registry.load(tmp_path / name)) for name in ("published.ckpt", "raw.ckpt"))
    )
    assert torch.equal(first, second)
    assert (first - call_unet(model, "SD15", (1, 0))).abs().max() > 1e-3


def _shallow(standin: str, kind: str, path: Path) -> Path:
    """The stand-in with the first layer of its perceiver alone, which holds most of the numbers: 1.2 GB for SDXL."""
    shapes = KINDS[standin].shapes(WIDTHS[kind])
    deeper = tuple(f"image_proj.perceiver_resampler.layers.{number}." for number in (1, 2, 3))
    save(path, {name: shape for name, shape in shapes.items() if not name.startswith(deeper)}, torch.float16)
    return path


def _with_clip(identity: Identity) -> Identity:
    noise = torch.randn(2, 1, 257, 1280, generator=torch.Generator().manual_seed(3))
    return with_image_tokens(identity, noise[0], noise[1])


@pytest.mark.parametrize(
    ("kind", "standin", "tokens"),
    [
        ("SD15", "faceid-plus-sd15", 4),
        ("SD15", "faceid-plusv2-sd15", 4),
        ("SD15", "faceid-portrait-sd15", 16),
        ("SDXL", "faceid-plusv2-sdxl", 4),
    ],
)
def test_every_variant_of_faceid(kind: Any, standin: str, tokens: int, tmp_path: Path) -> None:
    """Its tokens act in every layer for every order of rows; without strength and LoRA nothing is left."""
    path = _shallow(standin, kind, tmp_path / "any name.bin")
    loaded = LoadedAdapter(registry.load(path, variant=KINDS[standin].variant or registry.AUTO))
    assert loaded.adapter.report.tokens == tokens
    model, identity = tiny_model(kind), _with_clip(arcface_identity())
    patched = apply_identity(model, loaded, identity, ApplyOptions())
    assert {patched_calls(patched, kind, rows) for rows in ((1, 0), (0, 1), (0,))} == {ATTENTION_LAYERS[kind]}
    shown, plain = sample(patched), sample(model)
    assert torch.isfinite(shown).all()
    assert (shown - plain).abs().max() > 1e-3
    off = apply_identity(model, loaded, identity, ApplyOptions(strength=0.0, lora_strength=0.0))
    assert torch.equal(sample(off), plain)
