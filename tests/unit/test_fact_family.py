"""FaceChain-FACT files: recognised in every layout, loaded strictly, and honest about the identities they take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from identities import arcface_identity, transface_identity
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, IdentityMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.fact.layout import TRAINER_PATHS
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.tools.standins.adapters import fact, fact_blocks, gated_layer
from likeness_pack.tools.standins.blocks import batch_norm, linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes, filled_all
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from torch import Tensor

LEVELS = (8, 16, 24, 40)
CONTEXT, INPUT, WIDTH, QUERIES = 48, 36, 128, 5
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0"


def small_shapes(first_generation: bool = False) -> Shapes:
    """A FACT file of odd sizes: context 48, encoder tokens 36 wide, 5 queries, 2 projector layers, 3 heads of 64."""
    shapes: Shapes = {}
    for path, width in fact_blocks(LEVELS).items():
        shapes |= gated_layer(f"{path}.attn2.processor", width, CONTEXT)
    name = "local_fac_prj."
    if first_generation:
        shapes |= linear(f"{name}net", 9, 11) | linear(f"{name}feature.0", INPUT, CONTEXT, bias=False)
        return shapes | batch_norm(f"{name}feature.1", 11)
    shapes |= {f"{name}latents": (1, QUERIES, WIDTH)} | linear(f"{name}proj_in", INPUT, WIDTH)
    shapes |= linear(f"{name}proj_out", WIDTH, CONTEXT) | norm(f"{name}norm_out", CONTEXT)
    return shapes | perceiver(name, WIDTH, 2, 192)


def small_file(folder: Path, first_generation: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    tensors = filled_all(small_shapes(first_generation), dtype)
    torch.save(tensors, folder / "small.ckpt")
    return tensors


def identity(photos: int = 1, tokens: int = 9, width: int = INPUT, encoder: str = "transface_s") -> Identity:
    generator = torch.Generator().manual_seed(3)
    return Identity(encoder, {"tokens": torch.randn(photos, tokens, width, generator=generator)})


def test_every_tensor_of_a_file_arrives_under_its_name(tmp_path: Path) -> None:
    tensors = small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    assert {name: tuple(value.shape) for name, value in adapter.network.state_dict().items()} == small_shapes()
    for name, value in adapter.network.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    assert not adapter.network.training
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())


def test_widths_heads_and_context_come_from_shapes(tmp_path: Path) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    assert {path: layer.width for path, layer in adapter.layers.items()} == fact_blocks(LEVELS)
    assert {layer.heads for layer in adapter.layers.values()} == {8}
    assert (adapter.base, adapter.context_dim) == ("sd15", CONTEXT)
    assert (adapter.report.tokens, adapter.report.layers, adapter.report.variant) == (QUERIES, 16, "v1")


def test_half_precision_layers_stay_and_the_projector_is_single(tmp_path: Path) -> None:
    small_file(tmp_path, dtype=torch.float16)
    adapter = load(tmp_path / "small.ckpt")
    assert {p.dtype for layer in adapter.layers.values() for p in layer.parameters()} == {torch.float16}
    assert {p.dtype for p in adapter.network.local_fac_prj.parameters()} == {torch.float32}
    assert adapter.report.dtype == "float16"


def test_the_trainers_layout_is_the_same_adapter(tmp_path: Path) -> None:
    tensors = small_file(tmp_path)
    trainer_of = {published: trainer for trainer, published in TRAINER_PATHS.items()}
    raw = {}
    for name, value in tensors.items():
        path, found, rest = name.partition(".transformer_blocks.0.attn2.processor.")
        raw[f"{trainer_of[path]}.transformer_blocks.0.fuser.{rest}" if found else name] = value
    assert any(name.startswith("input_blocks.1.1.transformer_blocks.0.fuser.alpha_attn") for name in raw)
    torch.save(raw, tmp_path / "raw.ckpt")
    published, trained = load(tmp_path / "small.ckpt"), load(tmp_path / "raw.ckpt")
    expected = published.network.state_dict()
    got = trained.network.state_dict()
    assert list(trained.layers) == list(published.layers)
    assert expected.keys() == got.keys() and all(torch.equal(expected[name], got[name]) for name in expected)


def test_the_trainers_blocks_are_where_the_published_map_says() -> None:
    assert TRAINER_PATHS["input_blocks.8.1"] == "down_blocks.2.attentions.1"
    assert TRAINER_PATHS["output_blocks.3.1"] == "up_blocks.1.attentions.0"
    assert TRAINER_PATHS["output_blocks.11.1"] == "up_blocks.3.attentions.2"
    assert TRAINER_PATHS["middle_block.1"] == "mid_block.attentions.0"
    assert len(set(TRAINER_PATHS.values())) == 16


def test_photos_stand_one_after_the_other(tmp_path: Path) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    two = identity(2)
    tokens = adapter.tokens(two, TokenOptions())
    assert tokens.cond.shape == tokens.uncond.shape == (1, 2 * QUERIES, CONTEXT)
    for number in (0, 1):
        one = Identity("transface_s", {"tokens": two.features["tokens"][number : number + 1]})
        rows = slice(number * QUERIES, (number + 1) * QUERIES)
        assert torch.allclose(tokens.cond[:, rows], adapter.tokens(one, TokenOptions()).cond, atol=1e-5)


def test_negative_rows_get_the_projection_of_zeros(tmp_path: Path) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    uncond = adapter.tokens(identity(), TokenOptions()).uncond
    assert torch.allclose(uncond, adapter.network.local_fac_prj(torch.zeros(1, 9, INPUT)), atol=1e-6)
    assert uncond.abs().max() > 0.1
    assert adapter.tokens(identity(), TokenOptions(negative=False)).uncond is None


def test_layer_takes_the_adapters_own_tokens(tmp_path: Path) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    tokens = adapter.tokens(identity(), TokenOptions())
    for layer in adapter.layers.values():
        x = torch.ones(1, 4, layer.width)
        out = layer(x, layer.face_keys_values(tokens.cond), 1.0)
        assert torch.isfinite(out).all() and not torch.allclose(out, x, atol=1e-3)


def test_first_generation_feeds_both_branches_the_same(tmp_path: Path) -> None:
    small_file(tmp_path, first_generation=True)
    adapter = load(tmp_path / "small.ckpt")
    tokens = adapter.tokens(identity(), TokenOptions())
    assert tokens.cond.shape == (1, 11, CONTEXT)
    assert torch.equal(tokens.cond, tokens.uncond)
    assert (adapter.report.variant, adapter.report.tokens) == ("v0", 11)
    with pytest.raises(IdentityMismatch, match=r"one photo.*2 photos"):
        adapter.tokens(identity(2), TokenOptions())
    with pytest.raises(EncoderMismatch, match=r"\(N, 9, 36\).*\(1, 8, 36\)"):
        adapter.tokens(identity(tokens=8), TokenOptions())


def test_first_generation_without_the_counter_of_its_norm(tmp_path: Path) -> None:
    tensors = small_file(tmp_path, first_generation=True)
    del tensors["local_fac_prj.feature.1.num_batches_tracked"]
    torch.save(tensors, tmp_path / "old.ckpt")
    adapter = load(tmp_path / "old.ckpt")
    adapter.network.to("cpu")
    assert torch.isfinite(adapter.tokens(identity(), TokenOptions()).cond).all()


@pytest.mark.parametrize("encoder", ["dlib_resnet", "arcface_buffalo_l", "transface_b"])
def test_other_encoders_are_refused_by_name(tmp_path: Path, encoder: str) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    other = Identity(encoder, {"embedding": torch.ones(1, 128)})
    with pytest.raises(EncoderMismatch, match=rf"transface_s.*\(1, 128\).*{encoder}"):
        adapter.tokens(other, TokenOptions())


def test_tokens_of_another_width_are_refused_with_both_widths(tmp_path: Path) -> None:
    small_file(tmp_path)
    adapter = load(tmp_path / "small.ckpt")
    with pytest.raises(EncoderMismatch, match=r"\(N, T, 36\).*\(1, 144, 512\)"):
        adapter.tokens(transface_identity(), TokenOptions())
    with pytest.raises(EncoderMismatch):
        adapter.tokens(arcface_identity(), TokenOptions())


def test_replaced_norms_of_the_base_are_kept_and_told(tmp_path: Path) -> None:
    tensors = small_file(tmp_path)
    weight, bias = torch.full((8,), 2.0), torch.full((8,), 3.0)
    marker = f"{FIRST}.attn2.processor.ln."
    torch.save(tensors | {f"{marker}weight": weight, f"{marker}bias": bias}, tmp_path / "ln.ckpt")
    adapter = load(tmp_path / "ln.ckpt")
    assert list(adapter.norm2_overrides) == [FIRST]
    assert torch.equal(adapter.norm2_overrides[FIRST][0], weight) and torch.equal(
        adapter.norm2_overrides[FIRST][1], bias
    )
    assert "another norm2 for 1 blocks" in adapter.report.as_text()
    torch.save(tensors | {f"{marker}weight": weight}, tmp_path / "half.ckpt")
    with pytest.raises(KeyMismatch, match="weight and bias"):
        load(tmp_path / "half.ckpt")


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("mid_block.", "found 15, without mid_block"),
        ("local_fac_prj.latents", "local_fac_prj.latents"),
        ("local_fac_prj.norm_out.bias", "1 missing: local_fac_prj"),
        (f"{FIRST}.attn2.processor.ff.net.2.weight", "1 missing: down_blocks"),
    ],
)
def test_an_incomplete_file_is_a_named_error(tmp_path: Path, lost: str, told: str) -> None:
    tensors = small_file(tmp_path)
    torch.save({name: value for name, value in tensors.items() if not name.startswith(lost)}, tmp_path / "cut.ckpt")
    with pytest.raises(KeyMismatch, match=told):
        load(tmp_path / "cut.ckpt")


def test_a_leftover_key_is_a_named_error(tmp_path: Path) -> None:
    tensors = small_file(tmp_path)
    torch.save(tensors | {"local_fac_prj.channel_merge": torch.ones(3, 3)}, tmp_path / "more.ckpt")
    with pytest.raises(KeyMismatch, match="1 left over: local_fac_prj"):
        load(tmp_path / "more.ckpt")


@pytest.mark.parametrize(
    ("keep", "reason"), [("local_fac_prj.", "no gated layers"), ("down_blocks.", "no local_fac_prj")]
)
def test_half_a_file_is_refused_with_the_reason(tmp_path: Path, keep: str, reason: str) -> None:
    shapes = {name: shape for name, shape in small_shapes().items() if name.startswith(keep)}
    with pytest.raises(UnknownCheckpoint) as refused:
        recognise(read_header(write_sparse_safetensors(tmp_path / "half.safetensors", shapes)), "adapter")
    assert reason in refused.value.reasons["fact"]


def test_a_width_that_eight_heads_cannot_share_is_refused(tmp_path: Path) -> None:
    shapes = {name: tuple(12 if size == 8 else size for size in shape) for name, shape in small_shapes().items()}
    with pytest.raises(UnknownCheckpoint) as refused:
        recognise(read_header(write_sparse_safetensors(tmp_path / "odd.safetensors", shapes)), "adapter")
    assert "12 wide" in refused.value.reasons["fact"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("first", "tokens", "megabytes"), [(False, 16, 511), (True, 196, 417)])
def test_the_published_key_list_is_recognised(
    tmp_path: Path, legacy: bool, first: bool, tokens: int, megabytes: int
) -> None:
    path = write_zero_storage_torch(
        tmp_path / "any name.bin", fact(first_generation=first), torch.float16, legacy=legacy
    )
    match = recognise(read_header(path))
    report = match.family.describe(read_header(path), match)
    assert (report.family, report.base, report.tokens, report.layers) == ("fact", "sd15", tokens, 16)
    assert report.dtype == "float16"
    assert round(report.weight_bytes / 1e6) == megabytes
    assert report.code_licence == "Apache-2.0" and report.commercial is None
    assert report.sample_bytes is not None and 4.15e8 < report.sample_bytes < 4.4e8
