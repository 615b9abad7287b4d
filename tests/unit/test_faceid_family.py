"""IP-Adapter-FaceID files: recognised in every variant and layout, loaded strictly, relatives refused by reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from identities import arcface_identity
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.ip_adapter_faceid.family import FAMILY
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.tools.standins.adapters import (
    face_attention,
    faceid,
    faceid_portrait,
    faceid_projection,
    fact_blocks,
    sdxl_blocks,
)
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes, filled_all
from sparse_files import nested_by_part, write_sparse_safetensors, write_zero_storage_torch
from torch import Tensor
from torch.nn.functional import normalize

LEVELS = (8, 16, 24, 40)
WIDTHS = list(fact_blocks(LEVELS).values())
RANK, CONTEXT, IMAGE, PATCHES = 3, 768, 20, 6


def small_shapes(plus: bool = False, rank: int | None = RANK, tokens: int = 2) -> Shapes:
    """A FaceID file for SD1.5 of odd sizes: hidden 30, patches 20 wide, one perceiver layer, rank 3."""
    name = "image_proj."
    shapes = linear(f"{name}proj.0", 512, 30) | linear(f"{name}proj.2", 30, tokens * CONTEXT)
    shapes |= norm(f"{name}norm", CONTEXT)
    if plus:
        name += "perceiver_resampler."
        shapes |= linear(f"{name}proj_in", IMAGE, CONTEXT) | linear(f"{name}proj_out", CONTEXT, CONTEXT)
        shapes |= norm(f"{name}norm_out", CONTEXT) | perceiver(name, CONTEXT, 1, CONTEXT)
    return shapes | face_attention(WIDTHS, CONTEXT, rank)


def save(path: Path, shapes: Shapes, **more: Tensor) -> dict[str, Tensor]:
    """Write the two-level pickle of the published ``.bin`` files."""
    tensors = filled_all(shapes, torch.float32) | more
    torch.save(nested_by_part(tensors), path)
    return tensors


def plus_identity(photos: int = 1, encoder: str = "arcface_buffalo_l", **other: Tensor) -> Identity:
    generator = torch.Generator().manual_seed(5)
    features = {
        "embedding": torch.randn(photos, 512, generator=generator) * 20,
        "image_tokens": torch.randn(photos, PATCHES, IMAGE, generator=generator),
        "image_tokens_zero": torch.randn(1, PATCHES, IMAGE, generator=generator),
    }
    return Identity(encoder, features | other)


def refused(path: Path) -> str:
    with pytest.raises(UnknownCheckpoint) as error:
        recognise(read_header(path), candidates=[FAMILY])
    return error.value.reasons["ip_adapter_faceid"]


def test_every_tensor_of_a_file_is_used_unchanged(tmp_path: Path) -> None:
    tensors = save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    used = {f"image_proj.{name}": value for name, value in adapter.network.image_proj.state_dict().items()}
    for number, layer in enumerate(adapter.network.keys_values):
        used |= {f"ip_adapter.{2 * number + 1}.{name}": value for name, value in layer.state_dict().items()}
    for (index, role), weights in adapter.low_rank().items():
        used[f"ip_adapter.{index}.to_{role}_lora.down.weight"] = weights.down
        used[f"ip_adapter.{index}.to_{role}_lora.up.weight"] = weights.up
    assert used.keys() == tensors.keys()
    assert all(torch.equal(used[name], tensors[name]) for name in tensors)
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())


def test_the_lora_stays_out_of_the_managed_network(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    assert not any("lora" in name for name in adapter.network.state_dict())
    assert len(adapter.low_rank()) == 32 * 4
    assert adapter.low_rank() is adapter.low_rank()
    cross = adapter.low_rank()[1, "k"]
    assert (tuple(cross.up.shape), tuple(cross.down.shape)) == ((8, RANK), (RANK, CONTEXT))


def test_tokens_are_those_of_the_unit_embedding(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    identity = arcface_identity()
    tokens = adapter.tokens(identity, TokenOptions())
    unit = normalize(identity.features["embedding"], dim=-1)
    assert torch.allclose(tokens.cond, adapter.network.image_proj(unit), atol=1e-6)
    assert torch.allclose(tokens.uncond, adapter.network.image_proj(torch.zeros(1, 512)), atol=1e-6)
    scaled = Identity("arcface_buffalo_l", {"embedding": identity.features["embedding"] * 7})
    assert torch.allclose(adapter.tokens(scaled, TokenOptions()).cond, tokens.cond, atol=1e-5)
    assert adapter.tokens(identity, TokenOptions(negative=False)).uncond is None


def test_photos_stand_one_after_the_other(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes(plus=True))
    adapter = load(tmp_path / "f.bin", variant="plus_v2")
    three = plus_identity(3)
    tokens = adapter.tokens(three, TokenOptions())
    assert tokens.cond.shape == tokens.uncond.shape == (1, 3 * 2, CONTEXT)
    features = dict(three.features)
    second = {name: features[name][1:2] for name in ("embedding", "image_tokens")}
    alone = adapter.tokens(Identity(three.encoder, features | second), TokenOptions())
    assert torch.allclose(tokens.cond[:, 2:4], alone.cond, atol=1e-5)
    assert torch.equal(tokens.uncond[:, :2], tokens.uncond[:, 4:])


def test_keys_and_values_are_in_file_order(tmp_path: Path) -> None:
    tensors = save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    cond = adapter.tokens(arcface_identity(), TokenOptions()).cond
    pairs = adapter.keys_values(cond)
    assert list(adapter.layer_widths) == WIDTHS
    assert [tuple(k.shape) for k, _ in pairs] == [(1, 2, width) for width in WIDTHS]
    for number, (k, v) in enumerate(pairs):
        name = f"ip_adapter.{2 * number + 1}."
        assert torch.allclose(k, cond @ tensors[f"{name}to_k_ip.weight"].T, atol=1e-5)
        assert torch.allclose(v, cond @ tensors[f"{name}to_v_ip.weight"].T, atol=1e-5)


def test_the_shortcut_belongs_to_the_second_version(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes(plus=True))
    identity = plus_identity()
    first, second = (load(tmp_path / "f.bin", variant=variant) for variant in ("plus", "plus_v2"))
    projected = first.network.image_proj(normalize(identity.features["embedding"], dim=-1))
    plain = first.tokens(identity, TokenOptions()).cond
    assert torch.equal(plain, first.tokens(identity, TokenOptions(shortcut_scale=3.0)).cond)
    for scale in (1.0, 0.5):
        got = second.tokens(identity, TokenOptions(shortcut_scale=scale))
        assert torch.allclose(got.cond, projected + scale * plain, atol=1e-5)
        zero = second.network.image_proj.refined(torch.zeros(1, 512), identity.features["image_tokens_zero"], scale)
        assert torch.allclose(got.uncond, zero, atol=1e-5)


def test_plus_files_need_a_decision(tmp_path: Path) -> None:
    save(tmp_path / "ip-adapter-faceid-plusv2_sd15.bin", small_shapes(plus=True))
    with pytest.raises(AmbiguousCheckpoint, match="set the option variant to plus or plus_v2") as error:
        load(tmp_path / "ip-adapter-faceid-plusv2_sd15.bin")
    assert error.value.candidates == ("plus", "plus_v2")


@pytest.mark.parametrize(("size", "variant"), [(156_558_503, "plus"), (156_558_509, "plus_v2")])
def test_the_exact_size_of_a_published_file_decides(tmp_path: Path, size: int, variant: str) -> None:
    path = write_sparse_safetensors(tmp_path / "a.safetensors", faceid("sd15", plus=True), torch.float16)
    match = recognise(replace(read_header(path), size=size))
    assert match.variant == variant


def test_metadata_decides_where_size_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_sparse_safetensors(path, small_shapes(plus=True), metadata={"likeness.variant": "plus_v2"})
    assert recognise(read_header(path)).variant == "plus_v2"


def test_portrait_has_many_tokens_and_no_lora(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes(rank=None, tokens=4))
    adapter = load(tmp_path / "f.bin")
    assert (adapter.report.variant, adapter.report.tokens, dict(adapter.low_rank())) == ("portrait", 4, {})
    assert adapter.tokens(arcface_identity(photos=5), TokenOptions()).cond.shape == (1, 20, CONTEXT)


def test_the_trainers_dump_is_the_same_adapter(tmp_path: Path) -> None:
    tensors = save(tmp_path / "f.bin", small_shapes())
    names = {"image_proj": "module.image_proj_model", "ip_adapter": "module.adapter_modules"}
    dump = {"module.unet.conv_in.weight": torch.ones(4, 4, 3, 3)}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        dump[f"{names[part]}.{rest}"] = value
    torch.save(dump, tmp_path / "dump.bin")
    published, dumped = load(tmp_path / "f.bin"), load(tmp_path / "dump.bin")
    identity = arcface_identity()
    first, second = (one.tokens(identity, TokenOptions()).cond for one in (published, dumped))
    assert torch.equal(first, second)
    assert dumped.low_rank().keys() == published.low_rank().keys()


@pytest.mark.parametrize("encoder", ["transface_s", "arcface_antelopev2", "arcface_vit_s", "dlib_resnet"])
def test_embeddings_of_other_models_are_refused_by_name(tmp_path: Path, encoder: str) -> None:
    save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    other = Identity(encoder, {"embedding": torch.ones(1, 512)})
    with pytest.raises(EncoderMismatch, match=rf"arcface_buffalo_l.*{encoder}"):
        adapter.tokens(other, TokenOptions())


def test_an_embedding_of_another_width_is_refused_with_both(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes())
    adapter = load(tmp_path / "f.bin")
    with pytest.raises(EncoderMismatch, match=r"\(N, 512\).*\(1, 128\)"):
        adapter.tokens(Identity("arcface_buffalo_l", {"embedding": torch.ones(1, 128)}), TokenOptions())


@pytest.mark.parametrize("lost", ["image_tokens", "image_tokens_zero"])
def test_plus_files_need_clip_patches(tmp_path: Path, lost: str) -> None:
    save(tmp_path / "f.bin", small_shapes(plus=True))
    adapter = load(tmp_path / "f.bin", variant="plus")
    features = {name: value for name, value in plus_identity().features.items() if name != lost}
    with pytest.raises(EncoderMismatch, match=rf"{lost} \(.*CLIP vision"):
        adapter.tokens(Identity("arcface_buffalo_l", features), TokenOptions())


def test_one_set_of_patches_does_not_serve_two_photos(tmp_path: Path) -> None:
    save(tmp_path / "f.bin", small_shapes(plus=True))
    adapter = load(tmp_path / "f.bin", variant="plus")
    mixed = plus_identity(2, image_tokens=torch.ones(1, PATCHES, IMAGE))
    with pytest.raises(EncoderMismatch, match=r"image_tokens \(2, N, 20\).*\(1, 6, 20\)"):
        adapter.tokens(mixed, TokenOptions())


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("ip_adapter.31.", r"31\.to_k_ip"),
        ("ip_adapter.30.to_q_lora.up.weight", r"1 missing: 30"),
        ("image_proj.norm.bias", r"1 missing: norm"),
    ],
)
def test_an_incomplete_file_is_a_named_error(tmp_path: Path, lost: str, told: str) -> None:
    shapes = {name: shape for name, shape in small_shapes().items() if not name.startswith(lost)}
    save(tmp_path / "cut.bin", shapes)
    with pytest.raises(KeyMismatch, match=told):
        load(tmp_path / "cut.bin")


def test_a_leftover_key_is_a_named_error(tmp_path: Path) -> None:
    save(tmp_path / "more.bin", small_shapes(), **{"ip_adapter.33.to_k_ip.weight": torch.ones(8, CONTEXT)})
    with pytest.raises(KeyMismatch, match="1 left over: 33"):
        load(tmp_path / "more.bin")


PROJECTION_OF = {
    "InstantID": {"image_proj.latents": (1, 16, 1280), "image_proj.proj_in.weight": (1280, 512)},
    "plus-face": {"image_proj.latents": (1, 16, 768), "image_proj.proj_in.weight": (768, 1280)},
    "full-face": linear("image_proj.proj.0", 1280, 1280) | {"image_proj.proj.3.weight": (768,)},
    "plain IP-Adapter": linear("image_proj.proj", 1024, 3072) | norm("image_proj.norm", 768),
    "PuLID": {"image_proj.body.0.weight": (1024, 1280), "image_proj.mapping_0.0.weight": (1024, 1024)},
    "Kolors": faceid_projection(768, plus=True),
}


@pytest.mark.parametrize("relative", PROJECTION_OF)
def test_relatives_are_refused_with_the_reason(tmp_path: Path, relative: str) -> None:
    shapes = PROJECTION_OF[relative] | face_attention(WIDTHS, 768, None)
    assert relative in refused(write_sparse_safetensors(tmp_path / "faceid.safetensors", shapes))


@pytest.mark.parametrize(("key", "reason"), [("to_q_wplus", "W+"), ("to_k_face", "ID-Animator")])
def test_other_attentions_are_refused_with_the_reason(tmp_path: Path, key: str, reason: str) -> None:
    shapes = faceid_projection(768) | {f"ip_adapter.1.{key}.weight": (320, 768)}
    assert reason in refused(write_sparse_safetensors(tmp_path / "faceid.safetensors", shapes))


def test_another_text_context_is_refused_with_its_width(tmp_path: Path) -> None:
    shapes = faceid_projection(1024) | face_attention(WIDTHS, 1024, RANK)
    assert "1024 wide" in refused(write_sparse_safetensors(tmp_path / "faceid.safetensors", shapes))


PUBLISHED = {
    "plain sd15": (faceid("sd15"), "plain", "sd15", 4, 16, 96.7),
    "plain sdxl": (faceid("sdxl"), "plain", "sdxl", 4, 70, 1071.0),
    "plus sd15": (faceid("sd15", plus=True), "plus_v2", "sd15", 4, 16, 156.4),
    "plus sdxl": (faceid("sdxl", plus=True), "plus_v2", "sdxl", 4, 70, 1487.0),
    "portrait": (faceid_portrait(), "portrait", "sd15", 16, 16, 64.6),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("container", ["nested", "safetensors"])
def test_published_key_lists_are_recognised(tmp_path: Path, name: str, container: str) -> None:
    shapes, variant, base, tokens, layers, megabytes = PUBLISHED[name]
    if container == "nested":
        path = write_zero_storage_torch(tmp_path / "any.bin", nested_by_part(shapes), torch.float16)
    else:
        path = write_sparse_safetensors(tmp_path / "any.safetensors", shapes, torch.float16)
    header = read_header(path)
    match = recognise(header, variant=variant)
    report = match.family.describe(header, match)
    assert (report.family, report.variant, report.base) == ("ip_adapter_faceid", variant, base)
    assert (report.tokens, report.layers) == (tokens, layers)
    assert report.weight_bytes / 1e6 == pytest.approx(megabytes, rel=0.01)
    assert report.commercial is False and "non-commercial" in report.weight_licence
    widths = fact_blocks() if base == "sd15" else sdxl_blocks()
    assert report.sample_bytes == 2 * 2 * 2 * tokens * sum(widths.values())
