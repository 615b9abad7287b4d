"""PhotoMaker: recognised, loaded strictly, tokens and fusion by hand, its LoRA in every spelling, and the prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import photomaker, photomaker_lora, save, tiny_photomaker
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.photomaker.lora import low_rank_modules
from likeness_pack.adapters.families.photomaker.pictures import MEAN, STD, clip_pixels
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.identity_ops import combine
from likeness_pack.inject.text_tokens import BadPrompt, triggered_prompt
from module_folders import ModuleFolders
from sparse_files import nested_by_part, write_sparse_safetensors, write_zero_storage_torch

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
MODULES = {f"{ATTENTION}.to_q": (8, 8), f"{ATTENTION}.to_out.0": (8, 8)}


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 70, 90, 3, generator=torch.Generator().manual_seed(4))


def faces(count: int = 2, encoder: str = "arcface_buffalo_l") -> Identity:
    return Identity(encoder, {"embedding": torch.randn(count, 512, generator=torch.Generator().manual_seed(5)) * 20})


@pytest.fixture(scope="module", params=["v1", "v2"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def file(variant: str, module_folders: ModuleFolders) -> Path:
    path = module_folders.mktemp("photomaker") / "any.bin"
    save(path, tiny_photomaker(variant == "v2") | photomaker_lora(MODULES))
    return path


@pytest.fixture(scope="module")
def adapter(file: Path) -> Any:
    return registry.load(file)


@pytest.mark.parametrize("container", ["nested", "flat"])
@pytest.mark.parametrize("lora", [True, False])
def test_published_key_lists_are_recognised(tmp_path: Path, variant: str, container: str, lora: bool) -> None:
    shapes = photomaker(variant == "v2")
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert (len(shapes), count) == {"v1": (407, 326_273_024), "v2": (463, 543_395_840)}[variant]
    shapes |= photomaker_lora(MODULES) if lora else {}
    if container == "nested":
        path = write_zero_storage_torch(tmp_path / "r4nd0m", nested_by_part(shapes), torch.float16)
    else:
        path = write_sparse_safetensors(tmp_path / "r4nd0m", shapes, torch.float16)
    header = read_header(path)
    match = registry.recognise(header)
    report = match.family.describe(header, match)
    assert (report.family, report.variant, report.base) == ("photomaker", variant, "sdxl")
    assert report.tokens == {"v1": 1, "v2": 2}[variant]
    assert any("no LoRA" in note for note in report.notes) is not lora


def test_every_tensor_of_a_file_is_used_unchanged(file: Path, adapter: Any) -> None:
    parts = torch.load(file, weights_only=True)
    tensors = {f"{part}.{name}": tensor for part, names in parts.items() for name, tensor in names.items()}
    used = {f"id_encoder.{name}": value for name, value in adapter.network.state_dict().items()}
    assert used.keys() == {name for name in tensors if name.startswith("id_encoder.")}
    assert all(torch.equal(value, tensors[name]) for name, value in used.items())
    assert adapter.low_rank_modules().keys() == MODULES.keys()
    change = adapter.low_rank_modules()[f"{ATTENTION}.to_out.0"]
    assert torch.equal(change.up, tensors[f"lora_weights.unet.{ATTENTION}.processor.to_out_lora.up.weight"])
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())


def test_half_precision_files_compute_in_float32(tmp_path: Path, variant: str, adapter: Any) -> None:
    save(tmp_path / "half.bin", tiny_photomaker(variant == "v2"), torch.float16)
    half = registry.load(tmp_path / "half.bin")
    assert half.network.fuse_module.mlp1.fc1.weight.dtype == torch.float16
    first, second = (one.encode(photos(), faces()).features["id_tokens"] for one in (half, adapter))
    assert first.dtype == torch.float32
    torch.testing.assert_close(first, second, atol=2e-2, rtol=2e-2)


def test_each_photo_has_its_own_tokens(adapter: Any, variant: str) -> None:
    identity = adapter.encode(photos(5), faces(5))
    assert identity.encoder == f"photomaker_{variant}" and len(identity.photos) == 5
    assert identity.features["id_tokens"].shape == (5, adapter.tokens_per_photo, 2048)
    one = faces(5)
    third = Identity(one.encoder, {"embedding": one.features["embedding"][2:3]})
    alone = adapter.encode(photos(5)[2:3], third).features["id_tokens"]
    torch.testing.assert_close(identity.features["id_tokens"][2:3], alone, atol=1e-5, rtol=1e-5)
    tokens = adapter.tokens(identity, TokenOptions())
    assert tokens.cond.shape == (1, 5 * adapter.tokens_per_photo, 2048) and tokens.uncond is None
    assert adapter.tokens(combine([identity], "average"), TokenOptions()).cond.shape[1] == adapter.tokens_per_photo


def test_version_two_wants_the_raw_embedding_of_each_photo(adapter: Any, variant: str) -> None:
    if variant == "v1":
        assert torch.equal(
            adapter.encode(photos()).features["id_tokens"], adapter.encode(photos(), faces()).features["id_tokens"]
        )
        return
    louder = Identity("arcface_buffalo_l", {"embedding": faces().features["embedding"] * 3})
    first, second = (adapter.encode(photos(), one).features["id_tokens"] for one in (faces(), louder))
    assert (first - second).abs().max() > 1e-2
    for wrong in (
        None,
        faces(3),
        faces(encoder="arcface_antelopev2"),
        Identity("clip_vision", {"image_embeds": first}),
    ):
        with pytest.raises(EncoderMismatch, match=r"embedding \(2, 512\) of the encoder arcface_buffalo_l"):
            adapter.encode(photos(), wrong)


def test_photos_without_a_face_are_left_out(adapter: Any, variant: str) -> None:
    """Their rows of zeros would act as a person; version 1 takes no rows, and says so."""
    rows = faces(3)
    gap = rows.features["embedding"] * torch.tensor([1.0, 0.0, 1.0])[:, None]
    made = adapter.encode(photos(3), replace(rows, features={"embedding": gap}))
    if variant == "v1":
        assert len(made) == 3 and made.notes == ("face identity not used: version 1 takes none",)
        return
    assert len(made) == 2 == len(made.photos) and made.notes == ("no face in image 1 (counted from 0): left out",)
    whole = adapter.encode(photos(3), rows)
    torch.testing.assert_close(made.features["id_tokens"], whole.features["id_tokens"][[0, 2]], atol=1e-5, rtol=1e-5)
    with pytest.raises(EncoderMismatch, match="one for each photo"):
        adapter.encode(photos(3), replace(rows, features={"embedding": gap * 0}))


def test_identities_of_others_are_refused(adapter: Any) -> None:
    with pytest.raises(EncoderMismatch, match="PhotoMaker Encode"):
        adapter.tokens(faces(), TokenOptions())


def test_fusion_changes_the_class_rows_alone(adapter: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    prompt, tokens = (torch.randn(1, rows, 2048, generator=generator) for rows in (77, 3))
    before = prompt.clone()
    fused = adapter.fuse(prompt, tokens, (4, 5, 6))
    assert torch.equal(prompt, before)
    rest = [row for row in range(77) if row not in (4, 5, 6)]
    assert torch.equal(fused[:, rest], prompt[:, rest])
    assert (fused[:, 4:7] - prompt[:, 4:7]).abs().amax(dim=-1).min() > 1e-2


def test_photos_are_prepared_as_clip_does() -> None:
    grey = torch.full((1, 40, 60, 3), 0.5)
    pixels = clip_pixels(grey, 20)
    expected = (round(255 * 0.5) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(pixels, expected.view(1, 3, 1, 1).expand(1, 3, 20, 20), atol=1e-5, rtol=0)
    sides = torch.zeros(1, 20, 60, 3)
    sides[:, :, 20:40] = 1.0
    assert float(clip_pixels(sides, 20)[:, 0].min()) > 1.0
    assert clip_pixels(torch.rand(2, 33, 20, 3), 20).shape == (2, 3, 20, 20)


@pytest.mark.parametrize("spelling", ["processor", "layer", "peft"])
def test_the_lora_is_read_in_every_spelling(tmp_path: Path, spelling: str) -> None:
    shapes = {
        name.removeprefix("lora_weights."): shape for name, shape in photomaker_lora(MODULES, 3, spelling).items()
    }
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    changes = low_rank_modules(tensors, "x")
    assert changes.keys() == MODULES.keys()
    assert all(tuple(one.up.shape) == (8, 3) and tuple(one.down.shape) == (3, 8) for one in changes.values())


def test_an_alpha_is_folded_in() -> None:
    tensors = {
        f"unet.{ATTENTION}.to_q.lora_A.weight": torch.ones(4, 8),
        f"unet.{ATTENTION}.to_q.lora_B.weight": torch.ones(8, 4),
        f"unet.{ATTENTION}.to_q.alpha": torch.tensor(2.0),
    }
    assert float(low_rank_modules(tensors, "x")[f"{ATTENTION}.to_q"].up.max()) == 0.5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unet.mid_block.attentions.0.to_q.strange", "of another kind"),
        ("text_encoder.layers.0.q_proj.lora_A.weight", "of another kind"),
        (f"unet.{ATTENTION}.to_q.lora_A.weight", "one half only"),
    ],
)
def test_a_strange_lora_is_a_named_error(name: str, told: str) -> None:
    with pytest.raises(KeyMismatch, match=told):
        low_rank_modules({name: torch.ones(3, 8)}, "file")


def test_leftovers_and_relatives(tmp_path: Path, variant: str) -> None:
    shapes = tiny_photomaker(variant == "v2")
    cut = {k: v for k, v in shapes.items() if "layers.1.mlp.fc2.bias" not in k}
    with pytest.raises(KeyMismatch, match="1 missing"):
        registry.load(write_sparse_safetensors(tmp_path / "cut", cut))
    with pytest.raises(KeyMismatch, match="1 left over"):
        registry.load(write_sparse_safetensors(tmp_path / "more", shapes | {"id_encoder.extra.weight": (3, 3)}))
    tower = {k.removeprefix("id_encoder."): v for k, v in shapes.items() if "vision_model" in k}
    family = next(one for one in registry.families() if one.id == "photomaker")
    with pytest.raises(UnknownCheckpoint, match="no id_encoder"):
        registry.recognise(read_header(write_sparse_safetensors(tmp_path / "clip", tower)), candidates=[family])


WORDS = {"a": 1, "man": 2, "woman": 3, "img": 4, "on": 5, "beach": 6, "fire": 7}
START, END = 90, 91


class Clip:
    """A tokenizer of a few words, with two text encoders that pad differently, as SDXL's do."""

    def __init__(self, size: int = 12) -> None:
        self.size = size

    def tokenize(self, text: str) -> dict[str, Any]:
        return {"g": self._chunks(text, 0), "l": self._chunks(text, END)}

    def _chunks(self, text: str, pad: int) -> list[list[tuple[int, float]]]:
        weighted = [(word.split(":")[0], float(word.split(":")[1]) if ":" in word else 1.0) for word in text.split()]
        ids = [(WORDS[word], weight) for word, weight in weighted]
        step = self.size - 2
        parts = [ids[i : i + step] for i in range(0, len(ids), step)] or [[]]
        chunks = [[(START, 1.0), *part, (END, 1.0)] for part in parts]
        return [chunk + [(pad, 1.0)] * (self.size - len(chunk)) for chunk in chunks]


def words(tokens: Any, name: str, chunk: int = 0) -> list[int]:
    return [entry[0] for entry in tokens[name][chunk]]


def test_the_trigger_goes_and_its_word_is_repeated() -> None:
    prompt = triggered_prompt(Clip(), "a man img on beach", "img", 3)
    assert words(prompt.plain, "g") == [START, 1, 2, 5, 6, END, 0, 0, 0, 0, 0, 0]
    assert words(prompt.repeated, "g") == [START, 1, 2, 2, 2, 5, 6, END, 0, 0, 0, 0]
    assert words(prompt.repeated, "l") == [START, 1, 2, 2, 2, 5, 6, END, END, END, END, END]
    assert prompt.rows == (2, 3, 4)


def test_weights_stay_and_belong_to_the_repeated_word() -> None:
    prompt = triggered_prompt(Clip(), "a woman:1.3 img:1.3 on:0.5 beach", "img", 2)
    assert prompt.repeated["g"][0][1:5] == [(1, 1.0), (3, 1.3), (3, 1.3), (5, 0.5)]


def test_a_full_prompt_keeps_its_end() -> None:
    prompt = triggered_prompt(Clip(8), "a man img on beach fire", "img", 3)
    assert words(prompt.repeated, "g") == [START, 1, 2, 2, 2, 5, 6, END]
    assert words(prompt.plain, "l") == [START, 1, 2, 5, 6, 7, END, END]


def test_a_later_chunk_moves_the_rows() -> None:
    prompt = triggered_prompt(Clip(6), "a a a a on man img", "img", 2)
    assert prompt.rows == (6 + 2, 6 + 3)
    assert words(prompt.repeated, "g", 0) == [START, 1, 1, 1, 1, END]
    assert words(prompt.repeated, "g", 1) == [START, 5, 2, 2, END, 0]


@pytest.mark.parametrize(
    ("text", "count", "told"),
    [
        ("a man on beach", 1, "exactly once, found it 0 times"),
        ("a man img and woman img".replace("and ", ""), 1, "found it 2 times"),
        ("img on beach", 1, "right before the trigger word"),
        ("a man img", 11, "at most 9 rows"),
    ],
)
def test_prompts_that_cannot_carry_a_person(text: str, count: int, told: str) -> None:
    with pytest.raises(BadPrompt, match=told):
        triggered_prompt(Clip(), text, "img", count)
