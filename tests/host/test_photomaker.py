"""PhotoMaker in the real host: its tokenizer, its schedule of conditionings, the LoRA on its UNet, its CLIP vision."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import photomaker_lora, save, tiny_photomaker
from host_encoders import ThinClip, ToyClip
from host_inprocess import conditioning, fill_seeded, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch
from likeness_pack.adapters.families.photomaker.vision import VisionTransformer
from likeness_pack.adapters.identity import Identity
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.text_tokens import BadPrompt
from likeness_pack.nodes.photomaker import LikenessPhotoMakerEncode, LikenessPhotoMakerPrompt
from module_folders import ModuleFolders
from torch.nn.functional import linear
from unet_calls import call_unet

TEXT = "portrait photo of a (woman img:1.2), soft light"


def modules_of(model: Any) -> dict[str, tuple[int, int]]:
    """Every projection of every attention of a model, by diffusers name."""
    sizes = {}
    for layer in unet_layers(model):
        for number in (1, 2):
            inputs = layer.context_dim if number == 2 else layer.width
            ends = {"to_q": layer.width, "to_k": inputs, "to_v": inputs, "to_out.0": layer.width}
            sizes |= {f"{layer.path}.attn{number}.{end}": (layer.width, columns) for end, columns in ends.items()}
    return sizes


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SDXL model."""
    return tiny_model("SDXL")


@pytest.fixture(scope="module", params=["v1", "v2"])
def loaded(request: pytest.FixtureRequest, model: Any, module_folders: ModuleFolders) -> LoadedAdapter:
    """A file with a LoRA on every attention."""
    path = module_folders.mktemp("photomaker") / "any.bin"
    save(path, tiny_photomaker(request.param == "v2") | photomaker_lora(modules_of(model)))
    return LoadedAdapter(registry.load(path))


@pytest.fixture(scope="module")
def identity(loaded: LoadedAdapter) -> Identity:
    """Two photos, encoded by the node."""
    photos = torch.rand(2, 60, 80, 3, generator=torch.Generator().manual_seed(1))
    faces = Identity("arcface_buffalo_l", {"embedding": torch.ones(2, 512)})
    return LikenessPhotoMakerEncode().encode(loaded, photos, faces)["result"][0]


def prompt(loaded: LoadedAdapter, identity: Identity, model: Any, clip: Any = None, **more: Any) -> Any:
    """The node's two results."""
    settings = {"text": TEXT, "trigger_word": "img", "merge_percent": 0.22, "lora_strength": 1.0} | more
    return LikenessPhotoMakerPrompt().apply(model, clip or ToyClip(), loaded, identity, **settings)


def ids(tokens: Any, name: str) -> list[int]:
    return [int(entry[0]) for entry in tokens[name][0]]


def test_the_hosts_tokens_lose_the_trigger_and_repeat_the_class(
    loaded: LoadedAdapter, identity: Identity, model: Any
) -> None:
    clip = ToyClip()
    prompt(loaded, identity, model, clip)
    plain, fused = clip.asked
    count = 2 * loaded.adapter.tokens_per_photo
    for name in ("g", "l"):
        woman, img = (ids(clip.tokenize(word), name)[1] for word in ("woman", "img"))
        assert ids(plain, name) == ids(clip.tokenize("portrait photo of a woman, soft light"), name)
        assert ids(fused, name).count(woman) == count and img not in ids(fused, name)
        assert len(fused[name][0]) == 77
        place = ids(plain, name).index(woman)
        assert ids(fused, name)[place : place + count] == [woman] * count
        assert ids(fused, name)[place + count :] == ids(plain, name)[place + 1 : 77 - count + 1]
        assert fused[name][0][place][1] == pytest.approx(1.2)


def test_conditionings_take_turns(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    clip = ToyClip()
    early, late = prompt(loaded, identity, model, clip)[1]
    assert (early[1]["start_percent"], early[1]["end_percent"]) == (0.0, 0.22)
    assert (late[1]["start_percent"], late[1]["end_percent"]) == (0.22, 1.0)
    plain, repeated = (clip.encode_from_tokens(tokens, return_pooled=True) for tokens in clip.asked[:2])
    assert torch.equal(early[0], plain[0]) and torch.equal(early[1]["pooled_output"], plain[1])
    assert torch.equal(late[1]["pooled_output"], repeated[1])
    changed = (late[0] - repeated[0]).abs().amax(dim=-1)[0] > 1e-3
    woman = ids(clip.tokenize("woman"), "g")[1]
    assert changed.nonzero().flatten().tolist() == [i for i, one in enumerate(ids(clip.asked[1], "g")) if one == woman]


def test_the_ends_of_the_range(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    only_late = prompt(loaded, identity, model, merge_percent=0.0)[1]
    only_early = prompt(loaded, identity, model, merge_percent=1.0)[1]
    assert len(only_late) == len(only_early) == 1
    assert all("start_percent" not in one[0][1] for one in (only_late, only_early))


def test_sampling_passes_from_one_to_the_other(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    """With the turn at 0 or 1 only one of both is seen; between, the picture is neither; nothing stays on the model."""
    before = sample(model, steps=4)
    results = []
    for merge in (0.0, 0.5, 1.0):
        patched, positive = prompt(loaded, identity, model, merge_percent=merge, lora_strength=0.0)
        results.append(sample(patched, positive, conditioning("SDXL", seed=2), steps=4))
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert (results[first] - results[second]).abs().max() > 1e-4
    assert all(torch.isfinite(result).all() for result in results)
    assert torch.equal(sample(model, steps=4), before)


def test_the_lora_is_the_published_product(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    patched = prompt(loaded, identity, model)[0]
    changes = loaded.adapter.low_rank_modules()
    assert len(changes) == len(patched.patches) == 8 * 70
    weights = {layer.path: layer.weights for layer in unet_layers(model)}
    by_hand = {
        f"{weights[name.rpartition('.attn')[0]]}.attn{name.rpartition('.attn')[2]}.weight": (
            "diff", (change.up @ change.down,),
        )
        for name, change in changes.items()
    }  # fmt: skip
    reference = model.clone()
    assert len(reference.add_patches(by_hand)) == len(by_hand)
    torch.testing.assert_close(
        call_unet(patched, "SDXL", (1, 0)), call_unet(reference, "SDXL", (1, 0)), atol=1e-4, rtol=1e-4
    )
    assert not model.patches


def test_the_lora_acts_once(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    once = prompt(loaded, identity, model, lora_strength=0.5)[0]
    twice = prompt(loaded, identity, once)[0]
    assert {tuple(entry[0] for entry in entries) for entries in twice.patches.values()} == {(1.0,)}
    assert {tuple(entry[0] for entry in entries) for entries in once.patches.values()} == {(0.5,)}
    assert not prompt(loaded, identity, model, lora_strength=0.0)[0].patches


def test_the_hosts_own_text_encoders_take_the_tokens(loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    """Rows before the class word do not change (the encoders are causal), the class rows carry the identity, and a
    prompt that fills its places still has its pooled vector from an end token.
    """
    clip = ThinClip()
    late = prompt(loaded, identity, model, clip, text="a woman img on a beach", merge_percent=0.0)[1][0]
    plain, _ = clip.encode_from_tokens(clip.tokenize("a woman on a beach"), return_pooled=True)
    count = 2 * loaded.adapter.tokens_per_photo
    assert late[0].shape == (1, 77, 2048) and late[1]["pooled_output"].shape == (1, 1280)
    torch.testing.assert_close(late[0][:, :2], plain[:, :2], atol=1e-4, rtol=1e-4)
    unfused, _ = clip.encode_from_tokens(clip.asked[0], return_pooled=True)
    changed = (late[0] - unfused).abs().amax(dim=-1)[0] > 1e-3
    assert changed.nonzero().flatten().tolist() == list(range(2, 2 + count))
    full = prompt(loaded, identity, model, clip, text="a woman img" + " sea" * 72, merge_percent=0.0)[1][0]
    tokens = clip.asked[-1]
    assert full[0].shape == (1, 77, 2048) and ids(tokens, "g")[-1] == ids(clip.tokenize(""), "g")[1]
    endless = {name: [[*chunk[:-1], chunk[-2]] for chunk in chunks] for name, chunks in tokens.items()}
    assert (full[1]["pooled_output"] - clip.encode_from_tokens(endless, return_pooled=True)[1]).abs().max() > 1e-2


def test_wrong_wires_are_one_sentence(tmp_path: Path, loaded: LoadedAdapter, identity: Identity, model: Any) -> None:
    with pytest.raises(BaseModelMismatch, match="SDXL"):
        prompt(loaded, identity, tiny_model("SD15"))
    with pytest.raises(BadPrompt, match="exactly once"):
        prompt(loaded, identity, model, text="a photo of a woman")
    with pytest.raises(EncoderMismatch, match="PhotoMaker Prompt"):
        apply_identity(model, loaded, identity, ApplyOptions())

    class NarrowClip(ToyClip):
        def encode_from_tokens(self, tokens: Any, return_pooled: bool = False, **options: Any) -> Any:
            return tuple(part[..., :768] for part in super().encode_from_tokens(tokens, True))

    with pytest.raises(EncoderMismatch, match="2048 wide.*768"):
        prompt(loaded, identity, model, NarrowClip())


def test_the_image_tower_is_the_hosts() -> None:
    """The same weights in the host's CLIP vision class give the same numbers (quick GELU, norms, class token)."""
    config = {
        "hidden_act": "quick_gelu", "hidden_size": 128, "image_size": 56, "intermediate_size": 96, "num_channels": 3,
        "num_attention_heads": 2, "num_hidden_layers": 3, "patch_size": 14, "projection_dim": 8,
        "model_type": "clip_vision_model",
    }  # fmt: skip
    clip_model = importlib.import_module("comfy.clip_model")
    operations = importlib.import_module("comfy.ops").manual_cast
    host = clip_model.CLIPVisionModelProjection(config, torch.float32, torch.device("cpu"), operations)
    fill_seeded(host, 3)
    with torch.no_grad():
        for name, parameter in host.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    ours = VisionTransformer(width=128, depth=3, heads=2, inner=96, patch=14, positions=17)
    weights = {name.removeprefix("vision_model."): value for name, value in host.state_dict().items()}
    wanted = ours.state_dict().keys()
    ours.load_state_dict({name: weights[name] for name in wanted})
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        expected = host(pixel_values=pixels)
        hidden, pooled = ours(pixels)
    torch.testing.assert_close(hidden, expected[0], atol=2e-5, rtol=1e-4)
    projected = linear(pooled, host.visual_projection.weight)
    torch.testing.assert_close(projected, expected[2], atol=2e-5, rtol=1e-4)
