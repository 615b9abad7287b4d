"""IP-Adapter files of CLIP pictures: recognised in every variant and layout, loaded strictly, relatives refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from common_adapters import CONTEXT, full_face, plain, published_widths, resampled, save, tiny
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.identity_ops import combine
from likeness_pack.tools.standins.adapters import face_attention, faceid
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes
from sparse_files import nested_by_part, write_sparse_safetensors, write_zero_storage_torch
from torch.nn.functional import gelu, layer_norm
from torch.nn.functional import linear as linear_map

VARIANT = {"plain": "plain", "full_face": "full_face", "plus": "plus_face"}
PUBLISHED = {
    "plain sd15": (plain("sd15", published_widths("sd15")), ("plain",), "sd15", 4, 44.6),
    "plain sdxl vit-h": (plain("sdxl", published_widths("sdxl")), ("plain",), "sdxl", 4, 698.4),
    "plain sdxl vit-g": (plain("sdxl", published_widths("sdxl"), 1280), ("plain",), "sdxl", 4, 702.6),
    "full-face sd15": (full_face("sd15", published_widths("sd15")), ("full_face",), "sd15", 257, 43.6),
    "plus sd15": (resampled("sd15", published_widths("sd15"), 1280, 768), ("plus", "plus_face"), "sd15", 16, 98.2),
    "plus sdxl": (resampled("sdxl", published_widths("sdxl"), 1280, 1280), ("plus", "plus_face"), "sdxl", 16, 847.5),
}


def pictures(count: int = 1, embeds: int = 24, width: int = 1280) -> Identity:
    generator = torch.Generator().manual_seed(3)
    features = {
        "image_tokens": torch.randn(count, 5, width, generator=generator),
        "image_tokens_zero": torch.randn(1, 5, width, generator=generator),
        "image_embeds": torch.randn(count, embeds, generator=generator),
    }
    return Identity("clip_vision", features)


def loaded(folder: Path, kind: str, base: str = "sd15"):
    tensors = save(folder / "any name.bin", tiny(base, kind))
    return registry.load(folder / "any name.bin", variant=VARIANT[kind]), tensors


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("container", ["nested", "flat", "trainer"])
def test_published_key_lists_are_recognised(tmp_path: Path, name: str, container: str) -> None:
    shapes, variants, base, tokens, megabytes = PUBLISHED[name]
    if container == "nested":
        path = write_zero_storage_torch(tmp_path / "x.bin", nested_by_part(shapes), torch.float16)
    elif container == "flat":
        path = write_sparse_safetensors(tmp_path / "x", shapes, torch.float16)
    else:
        names = {"image_proj": "image_proj_model", "ip_adapter": "adapter_modules"}
        dump = {f"module.{names[key.split('.')[0]]}.{key.split('.', 1)[1]}": shape for key, shape in shapes.items()}
        path = write_sparse_safetensors(tmp_path / "x", dump | {"module.unet.conv_in.weight": (4, 4)}, torch.float16)
    header = read_header(path)
    for variant in variants:
        match = registry.recognise(header, "adapter", variant)
        report = match.family.describe(header, match)
        assert (report.family, report.variant, report.base) == ("ip_adapter", variant, base)
        assert (report.tokens, report.layers) == (tokens, {"sd15": 16, "sdxl": 70}[base])
        assert report.commercial is True
    if container != "trainer":
        assert report.weight_bytes / 1e6 == pytest.approx(megabytes, rel=0.01)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_plus_and_plus_face_are_not_told_apart_by_tensors(tmp_path: Path, base: str) -> None:
    shapes = resampled(base, published_widths(base), 1280, 768 if base == "sd15" else 1280)
    path = write_sparse_safetensors(tmp_path / "ip-adapter-plus-face.safetensors", shapes, torch.float16)
    with pytest.raises(AmbiguousCheckpoint, match="set the option variant to plus or plus_face") as error:
        registry.recognise(read_header(path))
    assert error.value.candidates == ("plus", "plus_face")


def test_the_size_of_the_published_files_decides_nothing(tmp_path: Path) -> None:
    """Plus and plus-face have the same size to the byte; only their checksums differ."""
    for size in (98_183_288, 847_517_512):
        rows = [row for row in registry_rows() if row.size == size]
        assert {row.variant for row in rows} == {"plus", "plus_face"}
        assert len({row.sha256 for row in rows}) == 2 and None not in {row.sha256 for row in rows}


def registry_rows():
    from likeness_pack.adapters.model_table import published_files

    return [row for row in published_files() if row.family == "ip_adapter"]


def test_metadata_decides(tmp_path: Path) -> None:
    path = write_sparse_safetensors(tmp_path / "x", tiny("sd15", "plus"), metadata={"likeness.variant": "plus_face"})
    assert registry.recognise(read_header(path)).variant == "plus_face"


@pytest.mark.parametrize("kind", VARIANT)
@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_every_tensor_of_a_file_is_used_unchanged(tmp_path: Path, kind: str, base: str) -> None:
    adapter, tensors = loaded(tmp_path, kind, base)
    used = {f"image_proj.{name}": value for name, value in adapter.network.image_proj.state_dict().items()}
    for number, layer in enumerate(adapter.network.keys_values):
        used |= {f"ip_adapter.{2 * number + 1}.{name}": value for name, value in layer.state_dict().items()}
    assert used.keys() == tensors.keys()
    assert all(torch.equal(used[name], tensors[name]) for name in tensors)
    assert dict(adapter.low_rank()) == {} and adapter.context_dim == CONTEXT[base]
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())


def test_plain_projects_the_image_embedding(tmp_path: Path) -> None:
    adapter, t = loaded(tmp_path, "plain")
    identity = pictures(2)
    tokens = adapter.tokens(identity, TokenOptions())

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        flat = linear_map(x, t["image_proj.proj.weight"], t["image_proj.proj.bias"]).reshape(1, -1, 768)
        return layer_norm(flat, (768,), t["image_proj.norm.weight"], t["image_proj.norm.bias"])

    assert torch.allclose(tokens.cond, by_hand(identity.features["image_embeds"]), atol=1e-5)
    assert torch.allclose(tokens.uncond, by_hand(torch.zeros(2, 24)), atol=1e-6)
    assert adapter.tokens(identity, TokenOptions(negative=False)).uncond is None


def test_full_face_projects_each_patch(tmp_path: Path) -> None:
    adapter, t = loaded(tmp_path, "full_face")
    identity = pictures(1)

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        inner = gelu(linear_map(x, t["image_proj.proj.0.weight"], t["image_proj.proj.0.bias"]))
        out = linear_map(inner, t["image_proj.proj.2.weight"], t["image_proj.proj.2.bias"])
        return layer_norm(out, (768,), t["image_proj.proj.3.weight"], t["image_proj.proj.3.bias"])

    tokens = adapter.tokens(identity, TokenOptions())
    assert torch.allclose(tokens.cond, by_hand(identity.features["image_tokens"]), atol=1e-4)
    assert torch.allclose(tokens.uncond, by_hand(identity.features["image_tokens_zero"]), atol=1e-4)


def test_plus_gives_the_queries_of_each_picture(tmp_path: Path) -> None:
    adapter, _ = loaded(tmp_path, "plus")
    identity = pictures(3)
    tokens = adapter.tokens(identity, TokenOptions())
    assert tokens.cond.shape == tokens.uncond.shape == (1, 12, 768)
    second = Identity("clip_vision", {**identity.features, "image_tokens": identity.features["image_tokens"][1:2]})
    assert torch.allclose(tokens.cond[:, 4:8], adapter.tokens(second, TokenOptions()).cond, atol=1e-5)
    assert torch.equal(tokens.uncond[:, :4], tokens.uncond[:, 8:])
    averaged = combine([identity], "average")
    assert adapter.tokens(averaged, TokenOptions()).cond.shape == (1, 4, 768)


def test_keys_and_values_are_in_file_order(tmp_path: Path) -> None:
    adapter, t = loaded(tmp_path, "plain")
    cond = adapter.tokens(pictures(), TokenOptions()).cond
    for number, (k, v) in enumerate(adapter.keys_values(cond)):
        assert torch.allclose(k, cond @ t[f"ip_adapter.{2 * number + 1}.to_k_ip.weight"].T, atol=1e-5)
        assert torch.allclose(v, cond @ t[f"ip_adapter.{2 * number + 1}.to_v_ip.weight"].T, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "identity", "told"),
    [
        ("plus", pictures(width=1664), r"image_tokens \(N, N, 1280\) of CLIP ViT-H/14.*\(1, 5, 1664\)"),
        ("plain", pictures(embeds=9), r"image_embeds \(N, 24\).*\(1, 9\)"),
        ("plain", arcface_identity(), r"image_embeds \(N, 24\).*arcface_buffalo_l.*Encode Image"),
        ("full_face", arcface_identity(), r"image_tokens.*arcface_buffalo_l"),
    ],
)
def test_other_features_are_refused_with_both_widths(tmp_path: Path, kind: str, identity: Identity, told: str) -> None:
    adapter, _ = loaded(tmp_path, kind)
    with pytest.raises(EncoderMismatch, match=told):
        adapter.tokens(identity, TokenOptions())


def test_a_face_identity_with_clip_patches_serves_too(tmp_path: Path) -> None:
    """'Encode Identity' with a CLIP vision model gives the same patches."""
    adapter, _ = loaded(tmp_path, "plus")
    faces = Identity("arcface_buffalo_l", {"embedding": torch.ones(1, 512), **pictures().features})
    assert torch.equal(adapter.tokens(faces, TokenOptions()).cond, adapter.tokens(pictures(), TokenOptions()).cond)


RELATIVES: dict[str, Shapes] = {
    "InstantID": resampled("sdxl", published_widths("sdxl"), 512, 1280),
    "1024 wide": resampled("sdxl", published_widths("sdxl"), 1024, 2048),
    "FaceID": faceid("sd15"),
    "PuLID": {"image_proj.mapping_0.0.weight": (1024, 1024), "image_proj.latents": (1, 32, 1024)}
    | face_attention(published_widths("sdxl"), 2048, None),
    "no latents": linear("image_proj.perceiver_resampler.proj_in", 1280, 768)
    | perceiver("image_proj.perceiver_resampler.", 768, 1, 768)
    | face_attention(published_widths("sd15"), 768, None),
    "ID-Animator": resampled("sd15", [8], 1280, 768) | {"ip_adapter.1.to_k_face.weight": (320, 768)},
    "W[+]": linear("image_proj.proj", 512, 3072) | {"ip_adapter.1.to_q_wplus.weight": (320, 320)},
    "text context 1024": linear("image_proj.proj", 1024, 4096)
    | norm("image_proj.norm", 1024)
    | face_attention([8, 8], 1024, None),
}


@pytest.mark.parametrize("told", RELATIVES)
def test_relatives_are_refused_with_the_reason(tmp_path: Path, told: str) -> None:
    header = read_header(write_sparse_safetensors(tmp_path / "ip-adapter-plus.safetensors", RELATIVES[told]))
    family = next(one for one in registry.families() if one.id == "ip_adapter")
    with pytest.raises(UnknownCheckpoint, match=told):
        registry.recognise(header, candidates=[family])


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("ip_adapter.31.to_k", r"31\.to_k_ip"),
        ("ip_adapter.5.to_v", "1 missing: 5"),
        ("image_proj.norm_out.bias", "1 m"),
    ],
)
def test_an_incomplete_file_is_a_named_error(tmp_path: Path, lost: str, told: str) -> None:
    save(tmp_path / "f.bin", {k: shape for k, shape in tiny("sd15", "plus").items() if not k.startswith(lost)})
    with pytest.raises(KeyMismatch, match=told):
        registry.load(tmp_path / "f.bin", variant="plus")
