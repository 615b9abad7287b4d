"""MuseTalk's files: key lists by formula, what is refused and why, variants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import golden_folder
from identities import arcface_identity
from key_lists import shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, EncoderMismatch
from likeness_pack.adapters.families.musetalk.family import FAMILY
from likeness_pack.adapters.families.musetalk.layout import PUBLISHED_WIDTHS, unet_shapes, widths_in
from likeness_pack.adapters.model_table import missing_file_error, published_file
from likeness_pack.tools.standins.command import write_standin
from safetensors.torch import save_file

SMALL = (32, 64, 64, 64)


def header_of(path: Path, shapes: dict[str, Any]) -> Any:
    save_file({name: torch.zeros(tuple(shape)) for name, shape in shapes.items()}, path)
    return read_header(path)


def test_the_formula_gives_the_published_list() -> None:
    published = {name: tuple(shape) for name, shape in shapes_of("musetalk_unet", golden_folder()).items()}
    assert unet_shapes() == published and len(published) == 686


def test_a_small_unet_is_recognised_at_its_widths(tmp_path: Path) -> None:
    header = header_of(tmp_path / "any name.safetensors", unet_shapes(SMALL))
    assert widths_in(header) == SMALL
    with pytest.raises(AmbiguousCheckpoint, match="fits v1 and v15 .both versions have the same tensors"):
        registry.load(header.path)
    for version in ("v1", "v15"):
        file = registry.load(header.path, "adapter", version)
        assert (file.version, file.base, file.context_dim, file.widths) == (version, "musetalk", 384, SMALL)
        assert set(file.tensors()) == set(unet_shapes(SMALL))
        assert "OpenRAIL" in file.report.as_text() and file.report.layers == 16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv_in.weight": (32, 4, 3, 3)}, "a UNet for 4 latent channels; MuseTalk has 8"),
        ({"conv_in.weight": (32, 9, 3, 3)}, "a UNet for 9 latent channels; MuseTalk has 8"),
        (
            {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (32, 768)},
            "a UNet with a context 768 wide; MuseTalk has 384 (whisper-tiny)",
        ),
        ({"down_blocks.1.resnets.0.conv1.weight": (48, 32, 3, 3)}, "levels 32/48/64/64 wide, which no MuseTalk is"),
        ({"conv_out.weight": (8, 32, 3, 3)}, "a UNet of another layout (conv_out (1) of another shape)"),
        ({"adapter_modules.0.x": (1,)}, "further tensors beside a UNet (adapter_modules.0 (1))"),
        ({"conv_in.weight": None}, "no conv_in.weight (MuseTalk's UNet in diffusers' names, no prefix)"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    shapes = {name: shape for name, shape in (unet_shapes(SMALL) | change).items() if shape is not None}
    assert FAMILY.recognise(header_of(tmp_path / "other.safetensors", shapes)) == reason


def test_a_damaged_file_is_still_musetalks(tmp_path: Path) -> None:
    shapes = unet_shapes(SMALL)
    del shapes["mid_block.resnets.1.conv2.bias"]
    assert widths_in(header_of(tmp_path / "short.safetensors", shapes)) == SMALL


def test_it_has_no_tokens_of_an_identity(tmp_path: Path) -> None:
    header = header_of(tmp_path / "unet.safetensors", unet_shapes(SMALL))
    file = registry.load(header.path, "adapter", "v15")
    with pytest.raises(EncoderMismatch, match="expected frames and sound, found an identity of the encoder arcface"):
        file.tokens(arcface_identity(), TokenOptions())


def test_the_published_files_are_in_the_table() -> None:
    rows = [published_file(name) for name in ("musetalk_v1", "musetalk_v15")]
    assert [(row.variant, row.family, row.folder) for row in rows] == [
        ("v1", "musetalk", "diffusion_models"),
        ("v15", "musetalk", "diffusion_models"),
    ]
    assert "about 3400 MB" in str(missing_file_error("musetalk_v15")) and PUBLISHED_WIDTHS == (320, 640, 1280, 1280)


@pytest.mark.parametrize(
    ("kind", "version"), [("musetalk-v1", "v1"), ("musetalk-v15", "v15"), ("unavglip", "resampler")]
)
def test_standins_say_which_version_they_are(tmp_path: Path, kind: str, version: str) -> None:
    assert registry.describe(write_standin(kind, tmp_path, (32,))).variant == version
