"""PuLID on the real SDXL topology: official sums in every projection, masks, several people, cost of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.encoders.base import FaceEncoder
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, HostTooOld
from likeness_pack.adapters.families.pulid_sdxl.projection import Projection, identity_term
from likeness_pack.adapters.family import Licence
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.nodes.pulid import LikenessApplyPulid, LikenessApplyPulidFlux, LikenessEncodePulid
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from tiny_pulid import pulid_identity, sdxl_shapes, write
from unet_calls import call_unet, patched_calls

BOTH = (Projection.STYLE, Projection.FIDELITY)


@pytest.fixture(scope="module")
def model() -> Any:
    """SDXL's layout, 70 layers."""
    return tiny_model("SDXL")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """PuLID v1."""
    return LoadedAdapter(registry.load(write(module_folders.mktemp("pulid") / "p.bin", sdxl_shapes("v1"))))


def _options(projection: Projection, zeros: int = 8, **other: Any) -> ApplyOptions:
    return ApplyOptions(projection=projection, tokens=TokenOptions(zero_tokens=zeros), **other)


def _slot(model: Any, number: int) -> Any:
    key = unet_layers(model)[number].key
    return model.model_options["transformer_options"]["patches_replace"]["attn2"][key]


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("projection", list(Projection))
@pytest.mark.parametrize("rows", [(1, 0), (0, 1, 0), (0,)])
def test_a_layer_gives_the_official_sum(
    model: Any, loaded: LoadedAdapter, projection: Projection, rows: tuple[int, ...]
) -> None:
    """Text attention plus strength times the written-out term; each row with its own tokens and zeros."""
    patched = apply_identity(model, loaded, pulid_identity(), _options(projection, strength=0.8))
    tokens = loaded.adapter.tokens(pulid_identity(), TokenOptions(zero_tokens=8))
    assert tokens.cond.shape[1] == 18
    for number in (0, 30, 69):
        layer = unet_layers(model)[number]
        q, k, v = (torch.randn(2 * len(rows), length, layer.width) for length in (12, 7, 7))
        got = _slot(patched, number)(q, k, v, {"n_heads": layer.heads, "cond_or_uncond": list(rows)}, unknown=1)
        pairs = [loaded.adapter.keys_values(side)[number] for side in (tokens.cond, tokens.uncond)]
        each = [row for row in rows for _ in range(2)]
        idk, idv = (torch.cat([pairs[row][part] for row in each]) for part in (0, 1))
        text = _attend(q, k, v, layer.heads)
        expected = text + 0.8 * identity_term(text, q, idk, idv, layer.heads, projection)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_the_projections_differ(model: Any, loaded: LoadedAdapter) -> None:
    results = [
        call_unet(apply_identity(model, loaded, pulid_identity(), _options(p)), "SDXL", (1, 0)) for p in Projection
    ]
    results.append(call_unet(model, "SDXL", (1, 0)))
    for index, result in enumerate(results):
        assert all((result - other).abs().max() > 1e-4 for other in results[:index])


@pytest.mark.parametrize("projection", list(Projection))
def test_every_layer_is_called_and_nothing_stays(model: Any, loaded: LoadedAdapter, projection: Projection) -> None:
    """70 layers; strength 0 and the model that came in sample bit-equal."""
    before = sample(model)
    patched = apply_identity(model, loaded, pulid_identity(), _options(projection))
    assert patched_calls(patched, "SDXL", (1, 0)) == 70
    assert (sample(patched) - before).abs().max() > 1e-4
    assert torch.equal(
        sample(apply_identity(model, loaded, pulid_identity(), _options(projection, strength=0.0))), before
    )
    assert torch.equal(sample(model), before)


@pytest.mark.parametrize("projection", BOTH)
def test_outside_the_mask_nothing_is_added(model: Any, loaded: LoadedAdapter, projection: Projection) -> None:
    """In each layer the tokens outside are the text attention's to the last bit; those inside are as without mask."""
    mask = torch.zeros(16, 16)
    mask[:, 8:] = 1
    layer = unet_layers(model)[0]
    q, k, v = (torch.randn(2, length, layer.width) for length in (16, 7, 7))
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0], "original_shape": [2, 4, 8, 8]}
    identity = pulid_identity()
    plain = _slot(apply_identity(model, loaded, identity, _options(projection, strength=0.0)), 0)(q, k, v, extra)
    masked = _slot(apply_identity(model, loaded, identity, _options(projection, mask=mask)), 0)(q, k, v, extra)
    whole = _slot(apply_identity(model, loaded, identity, _options(projection)), 0)(q, k, v, extra)
    inside = torch.zeros(4, 4, dtype=torch.bool)
    inside[:, 2:] = True
    inside = inside.flatten()
    assert torch.equal(masked[:, ~inside], plain[:, ~inside])
    torch.testing.assert_close(masked[:, inside], whole[:, inside], atol=2e-6, rtol=1e-5)
    assert (whole - plain).abs().amax(-1).min() > 1e-6


def test_two_people_and_a_second_application(model: Any, loaded: LoadedAdapter) -> None:
    """Each is measured against the text attention, so their order is of no account; the same one replaces itself."""

    def applied(*pairs: tuple[int, float]) -> torch.Tensor:
        patched = model
        for seed, strength in pairs:
            options = _options(Projection.FIDELITY, strength=strength)
            patched = apply_identity(patched, loaded, pulid_identity(seed), options)
        return call_unet(patched, "SDXL", (1, 0))

    torch.testing.assert_close(applied((0, 0.6), (1, 0.5)), applied((1, 0.5), (0, 0.6)), atol=1e-5, rtol=1e-5)
    assert torch.equal(applied((0, 0.3), (0, 0.6)), applied((0, 0.6)))


def test_negative_rows_can_be_left_alone(model: Any, loaded: LoadedAdapter) -> None:
    options = ApplyOptions(projection=Projection.FIDELITY, tokens=TokenOptions(negative=False, zero_tokens=8))
    got = call_unet(apply_identity(model, loaded, pulid_identity(), options), "SDXL", (1, 0))
    whole = call_unet(apply_identity(model, loaded, pulid_identity(), _options(Projection.FIDELITY)), "SDXL", (1, 0))
    torch.testing.assert_close(got[0], call_unet(model, "SDXL", (1, 0))[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got[1], whole[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("projection", BOTH)
def test_half_precision(model: Any, loaded: LoadedAdapter, dtype: torch.dtype, projection: Projection) -> None:
    """A layer in half precision is within a few of its own steps of the formula in float32; a model of it samples."""
    half = apply_identity(tiny_model("SDXL", dtype=dtype), loaded, pulid_identity(), _options(projection))
    assert torch.isfinite(sample(half, steps=1)).all()
    layer = unet_layers(model)[0]
    q, k, v = (torch.randn(2, length, layer.width).to(dtype) for length in (64, 7, 7))
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0]}
    got, heads = _slot(half, 0)(q, k, v, extra), layer.heads
    tokens = loaded.adapter.tokens(pulid_identity(), TokenOptions(zero_tokens=8))
    pairs = [loaded.adapter.keys_values(side)[0] for side in (tokens.uncond, tokens.cond)]
    idk, idv = (torch.cat([pair[part] for pair in pairs]).to(dtype).float() for part in (0, 1))
    text = _attend(q.float(), k.float(), v.float(), heads).to(dtype).float()
    expected = text + identity_term(text, q.float(), idk, idv, heads, projection)
    assert got.dtype == dtype
    assert ((got.float() - expected).abs() / (1 + expected.abs())).max() < 8 * torch.finfo(dtype).eps


def test_a_text_attention_of_zeros_stays_finite(model: Any, loaded: LoadedAdapter) -> None:
    """Another pack may return zeros from the slot; the official quotient would be 0 / 0."""
    foreign = model.clone()
    foreign.set_model_attn2_replace(lambda q, k, v, extra: q * 0, *unet_layers(model)[0].key)
    patched = apply_identity(foreign, loaded, pulid_identity(), _options(Projection.FIDELITY))
    assert torch.isfinite(call_unet(patched, "SDXL", (1, 0))).all()


def _step(model: Any) -> Any:
    state = CallState()
    call_unet(model, "SDXL", (1, 0), state)  # the first step fills caches
    return count_calls(lambda: call_unet(model, "SDXL", (1, 0), state, loaded=True))


@pytest.mark.parametrize(
    ("projection", "masked", "limit"),
    [
        (Projection.NEUTRAL, False, 1.10),
        (Projection.NEUTRAL, True, 1.10),
        (Projection.STYLE, False, 1.30),
        (Projection.FIDELITY, False, 1.30),
        (Projection.FIDELITY, True, 1.34),
    ],
)
def test_cost_of_a_step(model: Any, loaded: LoadedAdapter, projection: Projection, masked: bool, limit: float) -> None:
    """ATen calls that are no views against the plain step; nothing is read back to the host."""
    base = _step(model)
    options = _options(projection, strength=0.8, mask=torch.rand(16, 16) if masked else None)
    patched = _step(apply_identity(model, loaded, pulid_identity(), options))
    assert patched.compute <= limit * base.compute, f"{patched.compute} against {base.compute}"
    assert patched.synchronisations == base.synchronisations
    assert patched.copies == base.copies


@pytest.mark.parametrize(
    ("projection", "operations"), [(Projection.NEUTRAL, 2), (Projection.STYLE, 7), (Projection.FIDELITY, 8)]
)
def test_kernels_of_a_layer(model: Any, loaded: LoadedAdapter, projection: Projection, operations: int) -> None:
    """Counted with every composed operation taken apart, so that an attention off its fast path would show."""
    layer, generator = unet_layers(model)[0], torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, length, layer.width, generator=generator) for length in (16, 7, 7))
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0]}

    def calls(strength: float) -> int:
        options = _options(projection, strength=strength)
        slot = _slot(apply_identity(model, loaded, pulid_identity(), options), 0)
        with torch.no_grad():
            slot(q, k, v, extra)
            return count_calls(lambda: slot(q, k, v, extra)).compute

    assert calls(0.8) - calls(0.0) == operations


def test_version_1_1_and_several_photos(tmp_path: Path, model: Any) -> None:
    loaded = LoadedAdapter(registry.load(write(tmp_path / "p.safetensors", sdxl_shapes("v1.1"), torch.float16)))
    patched = apply_identity(model, loaded, pulid_identity(0, photos=3), _options(Projection.FIDELITY, zeros=20))
    assert torch.isfinite(sample(patched)).all()
    tokens = loaded.adapter.tokens(pulid_identity(0, photos=3), TokenOptions(zero_tokens=20))
    assert tokens.cond.shape == tokens.uncond.shape == (1, 6 + 20, 2048)


def test_wrong_base_model(loaded: LoadedAdapter) -> None:
    with pytest.raises(BaseModelMismatch, match="SDXL model with 70.*found 16"):
        apply_identity(tiny_model("SD15"), loaded, pulid_identity(), _options(Projection.FIDELITY))


@pytest.mark.parametrize(("projection", "zeros"), [("fidelity", 8), ("style", 16), ("neutral", 0)])
def test_the_node_takes_the_official_numbers(model: Any, loaded: LoadedAdapter, projection: str, zeros: int) -> None:
    """-1 stands for the authors' number of zero tokens of the file's version; a number of one's own holds."""
    node, identity = LikenessApplyPulid(), pulid_identity()
    (patched,) = node.apply(model, loaded, identity, 0.8, projection, -1, 0.0, 1.0)
    expected = apply_identity(model, loaded, identity, _options(Projection(projection), zeros, strength=0.8))
    assert torch.equal(call_unet(patched, "SDXL", (1, 0)), call_unet(expected, "SDXL", (1, 0)))
    (other,) = node.apply(model, loaded, identity, 0.8, projection, 3, 0.0, 1.0)
    assert not torch.equal(call_unet(patched, "SDXL", (1, 0)), call_unet(other, "SDXL", (1, 0)))


def test_the_node_refuses_other_adapters(tmp_path: Path, model: Any) -> None:
    other = LoadedAdapter(registry.load(write_faceid(tmp_path / "f.bin", "SDXL")))
    with pytest.raises(BaseModelMismatch, match="found one of IP-Adapter-FaceID for sdxl"):
        LikenessApplyPulid().apply(model, other, pulid_identity(), 0.8, "style", -1, 0.0, 1.0)


class _Encoder(FaceEncoder):
    """Gives what is said, and counts."""

    title = "test"
    uses_masks = True

    def __init__(self, identifier: str, features: dict[str, torch.Tensor]) -> None:
        self.id, self.features, self.masks = identifier, features, []
        self.licence = Licence("MIT", "MIT", True)

    def encode_faces(self, images: Any, index: Any, boxes: Any, landmarks5: Any, masks: Any) -> dict[str, torch.Tensor]:
        self.masks.append(masks)
        return {name: tensor.expand(len(index), *tensor.shape[1:]) for name, tensor in self.features.items()}


def test_encode_node_joins_both_encoders(model: Any, loaded: LoadedAdapter) -> None:
    """The mask reaches EVA-CLIP alone; what comes out fits the adapter; wrong encoders stop it at once."""
    source = pulid_identity().features
    face = _Encoder("arcface_antelopev2", {"embedding": source["embedding"]})
    eva = _Encoder("eva02_clip_l_336", {n: source[n] for n in ("eva_pooled", "eva_hidden")})
    images = torch.rand(2, 64, 64, 3)
    points = template_points("face_restore_512", 512)[None].float() / 8
    one = Faces(torch.tensor([[8.0, 8.0, 56.0, 56.0]]), points, torch.ones(1))
    faces = FaceBatch((one, one), (64, 64), "test")
    node = LikenessEncodePulid()
    out = node.encode(images, faces, LoadedEncoder(face), LoadedEncoder(eva), "best", "error", torch.ones(1, 64, 64))
    identity, crops, report = out["result"]
    assert face.masks == [None]
    assert eva.masks[0].shape == (2, 64, 64)
    assert (len(identity), tuple(crops.shape)) == (2, (2, 112, 112, 3))
    assert "background removed: yes" in report
    assert loaded.adapter.tokens(identity, TokenOptions()).cond.shape == (1, 15, 2048)
    with pytest.raises(EncoderMismatch, match="as eva_clip"):
        node.encode(images, faces, LoadedEncoder(eva), LoadedEncoder(face), "best", "error")
    assert len(face.masks) == len(eva.masks) == 1


def test_the_flux_node_refuses_sdxl_files_or_an_old_host(model: Any, loaded: LoadedAdapter) -> None:
    """On a host without Flux it says which ComfyUI it needs, whatever is connected."""
    refusal, told = (BaseModelMismatch, "PuLID for Flux") if engine().has_wrappers else (HostTooOld, r"0\.3\.60")
    with pytest.raises(refusal, match=told):
        LikenessApplyPulidFlux().apply(model, loaded, pulid_identity(), 1.0, 0.0, 1.0)
