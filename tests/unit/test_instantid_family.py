"""InstantID and FaceID-Portrait-unnorm: one layout, two systems, raw embeddings of two different models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import published_widths, resampled, save, tiny
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, EncoderMismatch, UnknownCheckpoint
from likeness_pack.adapters.identity import Identity
from module_folders import ModuleFolders
from sparse_files import nested_by_part, write_sparse_safetensors, write_zero_storage_torch

ENCODERS = {"instantid": "arcface_antelopev2", "portrait_unnorm": "arcface_buffalo_l"}


def identity(encoder: str, photos: int = 1, scale: float = 20.0) -> Identity:
    embedding = torch.randn(photos, 512, generator=torch.Generator().manual_seed(2)) * scale
    return Identity(encoder, {"embedding": embedding})


@pytest.fixture(scope="module")
def file(module_folders: ModuleFolders) -> Path:
    path = module_folders.mktemp("instantid") / "some file.bin"
    save(path, tiny("sdxl", "instantid"))
    return path


@pytest.fixture(scope="module", params=ENCODERS)
def adapter(request: pytest.FixtureRequest, file: Path) -> Any:
    return registry.load(file, variant=request.param)


@pytest.mark.parametrize("container", ["nested", "flat"])
def test_the_published_key_list_fits_both(tmp_path: Path, container: str) -> None:
    shapes = resampled("sdxl", published_widths("sdxl"), 512, 1280)
    assert len(shapes) == 191
    if container == "nested":
        path = write_zero_storage_torch(tmp_path / "r4nd0m", nested_by_part(shapes))
    else:
        path = write_sparse_safetensors(tmp_path / "r4nd0m", shapes)
    header = read_header(path)
    with pytest.raises(AmbiguousCheckpoint) as error:
        registry.recognise(header)
    assert error.value.candidates == ("instantid", "portrait_unnorm")
    match = registry.recognise(header, variant="instantid")
    report = match.family.describe(header, match)
    assert (report.base, report.tokens, report.layers) == ("sdxl", 16, 70)
    assert report.weight_bytes == 4 * 422_765_824
    assert report.commercial is False


def test_the_size_of_the_published_file_decides(tmp_path: Path) -> None:
    shapes = resampled("sdxl", published_widths("sdxl"), 512, 1280)
    header = read_header(write_sparse_safetensors(tmp_path / "x", shapes))
    assert registry.recognise(replace(header, size=1_691_134_141)).variant == "instantid"


def test_tokens_are_those_of_the_raw_embedding(adapter: Any) -> None:
    encoder = ENCODERS[adapter.report.variant]
    tokens = adapter.tokens(identity(encoder), TokenOptions())
    raw = identity(encoder).features["embedding"]
    assert torch.allclose(tokens.cond, adapter.network.image_proj(raw[:, None]), atol=1e-6)
    assert torch.allclose(tokens.uncond, adapter.network.image_proj(torch.zeros(1, 1, 512)), atol=1e-6)
    assert (adapter.tokens(identity(encoder, scale=1.0), TokenOptions()).cond - tokens.cond).abs().max() > 1e-2
    assert adapter.tokens(identity(encoder), TokenOptions(negative=False)).uncond is None


def test_photos_stand_one_after_the_other(adapter: Any) -> None:
    tokens = adapter.tokens(identity(ENCODERS[adapter.report.variant], photos=3), TokenOptions())
    assert tokens.cond.shape == tokens.uncond.shape == (1, 12, 2048)
    assert torch.equal(tokens.uncond[:, :4], tokens.uncond[:, 8:])


def test_embeddings_of_other_models_are_refused_by_name(adapter: Any) -> None:
    wanted = ENCODERS[adapter.report.variant]
    for other in {*ENCODERS.values(), "transface_s"} - {wanted}:
        with pytest.raises(EncoderMismatch, match=rf"{wanted}.*{other}"):
            adapter.tokens(identity(other), TokenOptions())
    with pytest.raises(EncoderMismatch, match=r"\(N, 512\).*\(1, 128\)"):
        adapter.tokens(Identity(wanted, {"embedding": torch.ones(1, 128)}), TokenOptions())


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (resampled("sdxl", published_widths("sdxl"), 1280, 1280), "1280 wide"),
        (resampled("sd15", published_widths("sd15"), 512, 768), "exist for SDXL"),
        ({"local_fac_prj.latents": (1, 16, 1024)}, "no pair of parts"),
    ],
)
def test_relatives_are_refused_with_the_reason(tmp_path: Path, shapes: dict[str, Any], told: str) -> None:
    family = next(one for one in registry.families() if one.id == "instantid")
    with pytest.raises(UnknownCheckpoint, match=told):
        registry.recognise(read_header(write_sparse_safetensors(tmp_path / "x", shapes)), candidates=[family])
