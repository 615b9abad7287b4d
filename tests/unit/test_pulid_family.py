"""PuLID files: recognised in every published form, loaded strictly, tokens as the authors make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import DATA, golden_folder
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.pulid_flux.arch import IdentityCrossAttention
from likeness_pack.adapters.families.pulid_sdxl.projection import Projection, identity_term, zero_tokens
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import describe, families, load, recognise
from likeness_pack.tools.standins.fill import Shapes, filled_all
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from tiny_pulid import flux_shapes, pulid_identity, sdxl_shapes, write

FORMS = {
    "v1.bin": sdxl_shapes("v1", 8),
    "v1.1.safetensors": sdxl_shapes("v1.1", 8),
    "community v1.1.safetensors": sdxl_shapes("v1.1", 8, community=True),
    "community v1.safetensors": sdxl_shapes("v1", 8, community=True),
}


def refusals(path: Path) -> dict[str, str]:
    """What both families answer."""
    header = read_header(path)
    return {family.id: str(family.recognise(header)) for family in families("adapter") if family.id.startswith("pulid")}


def published(name: str) -> dict[str, Any]:
    """A published key list, from the golden folder."""
    path = golden_folder() / f"common_ckpt_{name}.keys.json"
    if not path.exists():
        path = DATA / path.name
    if not path.exists():
        pytest.skip("needs the golden folder")
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("name", "family", "variant", "tokens", "layers"),
    [
        ("pulid_v1", "pulid_sdxl", "v1", 10, 70),
        ("pulid_v1_1", "pulid_sdxl", "v1.1", 32, 70),
        ("pulid_flux", "pulid_flux", None, 32, 20),
    ],
)
def test_published_key_lists(
    tmp_path: Path, name: str, family: str, variant: str | None, tokens: int, layers: int
) -> None:
    shapes = published(name)
    for path in (
        write_sparse_safetensors(tmp_path / "a name.safetensors", shapes, torch.float16),
        write_zero_storage_torch(tmp_path / "b.bin", shapes),
    ):
        match = recognise(read_header(path))
        report = describe(path)
        assert (match.family.id, match.variant, report.tokens, report.layers) == (family, variant, tokens, layers)
        assert report.commercial is None
        assert "antelopev2" in report.as_text()


def test_all_other_key_lists_are_refused(tmp_path: Path) -> None:
    """No file of another system is taken; each family gives a reason."""
    lists = sorted(path for path in golden_folder().glob("*.keys.json") if "pulid" not in path.name)
    seen = 0
    for path in lists:
        shapes = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(shapes, dict) or not all(isinstance(shape, list) for shape in shapes.values()):
            continue
        seen += 1
        answers = refusals(write_sparse_safetensors(tmp_path / "x.safetensors", shapes))
        assert all(answer.startswith("no ") for answer in answers.values()), (path.name, answers)
    assert seen or not lists


@pytest.mark.parametrize("name", FORMS)
def test_every_tensor_of_a_file_is_used_unchanged(tmp_path: Path, name: str) -> None:
    adapter = load(write(tmp_path / name, FORMS[name]))
    tensors = filled_all(FORMS[name], torch.float32)
    prefixes = ("image_proj.", "ip_adapter.") if "community" in name else ("id_adapter.", "id_adapter_attn_layers.")
    used = {prefixes[0] + key: value for key, value in adapter.network.id_adapter.state_dict().items()}
    maps = ("to_k_ip", "to_v_ip") if "community" in name else ("id_to_k", "id_to_v")
    for number, layer in enumerate(adapter.network.keys_values):
        for ours, theirs in zip(("id_to_k", "id_to_v"), maps, strict=True):
            used[f"{prefixes[1]}{2 * number + 1}.{theirs}.weight"] = getattr(layer, ours).weight
    assert used.keys() == tensors.keys()
    assert all(torch.equal(used[key], tensors[key]) for key in tensors)
    assert adapter.layer_widths[0] == 16
    assert len(adapter.layer_widths) == 70
    assert adapter.report.variant == ("v1.1" if "1.1" in name else "v1")


def test_both_layouts_give_the_same_tokens(tmp_path: Path) -> None:
    tensors = {}
    for name in ("v1.1.safetensors", "community v1.1.safetensors"):
        adapter = load(write(tmp_path / name, FORMS[name]))
        state = {key: torch.full_like(value, 0.02) for key, value in adapter.network.id_adapter.state_dict().items()}
        adapter.network.id_adapter.load_state_dict(state)
        tensors[name] = adapter.tokens(pulid_identity(), TokenOptions()).cond
    assert torch.equal(*tensors.values())


def test_v1_puts_further_photos_behind_the_first(tmp_path: Path) -> None:
    """Ten tokens of the first photo, five of each further one; all ten with the authors' ID mix."""
    adapter = load(write(tmp_path / "p.bin", FORMS["v1.bin"]))
    three = pulid_identity(0, photos=3)
    single = [
        adapter.tokens(Identity(three.encoder, {n: t[i : i + 1] for n, t in three.features.items()}), TokenOptions())
        for i in range(3)
    ]
    tokens = adapter.tokens(three, TokenOptions())
    expected = torch.cat((single[0].cond, single[1].cond[:, :5], single[2].cond[:, :5]), dim=1)
    assert torch.allclose(tokens.cond, expected, atol=1e-5)
    uncond = single[0].uncond
    assert torch.allclose(tokens.uncond, torch.cat((uncond, uncond[:, :5], uncond[:, :5]), dim=1), atol=1e-6)
    mixed = adapter.tokens(three, TokenOptions(mix=True))
    assert torch.allclose(mixed.cond, torch.cat([one.cond for one in single], dim=1), atol=1e-5)


def test_zero_tokens_stand_last_and_have_no_keys(tmp_path: Path) -> None:
    adapter = load(write(tmp_path / "p.bin", FORMS["v1.bin"]))
    plain = adapter.tokens(pulid_identity(), TokenOptions())
    padded = adapter.tokens(pulid_identity(), TokenOptions(zero_tokens=3))
    for one, more in ((plain.cond, padded.cond), (plain.uncond, padded.uncond)):
        assert torch.equal(more[:, :10], one)
        for k, v in adapter.keys_values(more):
            assert not k[:, 10:].any() and not v[:, 10:].any()
    assert adapter.tokens(pulid_identity(), TokenOptions(negative=False)).uncond is None
    assert dict(adapter.low_rank()) == {}


@pytest.mark.parametrize("shapes", [sdxl_shapes("v1", 8), flux_shapes()], ids=["sdxl", "flux"])
def test_half_precision_files_keep_their_dtype_and_project_in_float32(tmp_path: Path, shapes: Shapes) -> None:
    half = load(write(tmp_path / "h.safetensors", shapes, torch.float16))
    whole = load(write(tmp_path / "w.safetensors", shapes))
    assert {parameter.dtype for parameter in half.network.parameters()} == {torch.float16}
    got, expected = (adapter.tokens(pulid_identity(), TokenOptions()).cond for adapter in (half, whole))
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() < 0.02 * (1 + expected.abs().max())


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"encoder": "arcface_buffalo_l"}, "of the encoder arcface_buffalo_l"),
        ({"without": "eva_hidden"}, r"found embedding \(1, 512\), eva_pooled"),
        ({"eva_pooled": torch.zeros(1, 3)}, r"eva_pooled \(1, 3\)"),
        ({"eva_hidden": torch.zeros(1, 4, 7, 16)}, r"eva_hidden \(N, 5, S, 16\)"),
    ],
)
def test_other_identities_are_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    features: dict[str, Any] = {**pulid_identity().features}
    features.pop(changed.get("without", ""), None)
    features |= {name: value for name, value in changed.items() if isinstance(value, torch.Tensor)}
    identity = Identity(changed.get("encoder", "arcface_antelopev2"), features)
    for shapes in (sdxl_shapes("v1", 8), flux_shapes(2)):
        adapter = load(write(tmp_path / "p.safetensors", shapes))
        with pytest.raises(EncoderMismatch, match=told):
            adapter.tokens(identity, TokenOptions())


@pytest.mark.parametrize(
    ("shapes", "missing"),
    [
        (FORMS["v1.bin"], "id_adapter_attn_layers.41.id_to_v.weight"),
        (FORMS["v1.1.safetensors"], "id_adapter.layers.3.1.3.weight"),
        (flux_shapes(), "pulid_ca.7.norm2.bias"),
    ],
)
def test_a_missing_or_foreign_key_is_an_error(tmp_path: Path, shapes: Shapes, missing: str) -> None:
    fewer = {name: shape for name, shape in shapes.items() if name != missing}
    with pytest.raises(KeyMismatch, match="1 missing"):
        load(write(tmp_path / "fewer.safetensors", fewer))
    part = missing.split(".")[0]
    with pytest.raises(KeyMismatch, match="1 left over"):
        load(write(tmp_path / "more.safetensors", shapes | {f"{part}.other.weight": (2, 2)}))


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("v1.bin", {"id_adapter.body.6.weight": (10,)}, "no identity encoder"),
        ("v1.1.safetensors", {"id_adapter.layers.0.0.to_q.weight": (65, 64)}, "not a multiple of 64"),
        ("v1.1.safetensors", {"id_adapter.id_embedding_mapping.6.weight": (321, 24)}, "whole tokens"),
        ("v1.1.safetensors", {"id_adapter.layers.5.0.to_q.weight": (64, 64)}, "6 layers"),
        ("v1.1.safetensors", {"id_adapter.latents": (6, 64)}, "no identity encoder"),
        ("v1.bin", {"id_adapter_attn_layers.1.id_to_k.weight": (16, 768)}, "text context of 2048"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_the_reason(
    tmp_path: Path, name: str, changed: Shapes, reason: str
) -> None:
    path = write_sparse_safetensors(tmp_path / "x.safetensors", FORMS[name] | changed)
    assert reason in refusals(path)["pulid_sdxl"]
    with pytest.raises(UnknownCheckpoint):
        recognise(read_header(path), "adapter")


def test_flux_places_are_the_published_ones(tmp_path: Path) -> None:
    adapter = load(write(tmp_path / "f.safetensors", flux_shapes()))
    places = adapter.insertions(19, 38)
    assert places[:3] == [("double_block", 0), ("double_block", 2), ("double_block", 4)]
    assert places[9:12] == [("double_block", 18), ("single_block", 0), ("single_block", 4)]
    assert places[-1] == ("single_block", 36)
    assert len(places) == len(adapter.attentions) == adapter.report.layers == 20


def test_flux_weights_of_a_step_and_of_an_identity_are_apart(tmp_path: Path) -> None:
    """Every tensor of the file is in one of both networks, none in both."""
    adapter = load(write(tmp_path / "f.safetensors", flux_shapes()))
    once = {id(parameter) for parameter in adapter.network.parameters()}
    each = {id(parameter) for parameter in adapter.block_network.parameters()}
    assert not once & each
    assert len(once) + len(each) == len(flux_shapes())
    assert not any(
        parameter.requires_grad for parameter in (*adapter.network.parameters(), *adapter.block_network.parameters())
    )


def test_flux_keys_and_values_need_the_identity_alone() -> None:
    module = IdentityCrossAttention(64, 48, 2)
    tokens, image = torch.randn(1, 6, 48), torch.randn(1, 9, 64)
    k, v = module.keys_values(tokens)
    assert k.shape == v.shape == (1, 6, 256)
    together = module(image, k, v)
    apart = torch.cat([module(part, k, v) for part in image.split(4, dim=1)], dim=1)
    assert torch.allclose(together, apart, atol=1e-6)


def test_the_projections_mean_what_they_say() -> None:
    """Style adds nothing along the text attention; fidelity with all attention on the face adds all of it."""
    generator = torch.Generator().manual_seed(1)
    out, q = (torch.randn(2, 12, 32, generator=generator) for _ in range(2))
    k, v = (torch.randn(2, 9, 32, generator=generator) for _ in range(2))
    style = identity_term(out, q, k, v, 2, Projection.STYLE)
    assert (style * out).sum(1).abs().max() < 1e-4
    neutral = identity_term(out, q, k[:, :5], v[:, :5], 2, Projection.NEUTRAL)
    assert torch.allclose(identity_term(out, q, k[:, :5], v[:, :5], 2, Projection.FIDELITY), neutral, atol=1e-5)


def test_official_numbers_of_zero_tokens() -> None:
    assert [zero_tokens(p, "v1") for p in Projection] == [0, 16, 8]
    assert [zero_tokens(p, "v1.1") for p in Projection] == [0, 20, 20]
