"""IP-Adapter in the real host: its CLIP vision model, its UNet, every layer, strength, masks, removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import save, tiny
from host_encoders import clip_vision
from host_inprocess import ATTENTION_LAYERS, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.faces.errors import NoFaceFound
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.nodes.adapter import LikenessApplyIdentity
from likeness_pack.nodes.encoder_image import LikenessEncodeImage
from module_folders import ModuleFolders
from unet_calls import call_unet, patched_calls

VARIANT = {"plain": "plain", "full_face": "full_face", "plus": "plus_face"}


@pytest.fixture(scope="module")
def vision(module_folders: ModuleFolders) -> Any:
    """A CLIP vision model of ViT-H's width."""
    return clip_vision(module_folders.mktemp("vision"))


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two pictures that are not square."""
    return torch.rand(2, 120, 160, 3, generator=torch.Generator().manual_seed(8))


@pytest.fixture(scope="module")
def identity(vision: Any, pictures: torch.Tensor) -> Any:
    """What the node makes of both."""
    return LikenessEncodeImage().encode(pictures, vision)["result"][0]


def adapter_file(folder: Path, base: str, kind: str) -> LoadedAdapter:
    """A file of the variant for a tiny model."""
    save(folder / "any.bin", tiny(base, kind))
    return LoadedAdapter(registry.load(folder / "any.bin", variant=VARIANT[kind]))


def test_the_features_are_the_hosts(vision: Any, pictures: torch.Tensor, identity: Any) -> None:
    output = vision.encode_image(pictures[1:])
    features = identity.features
    torch.testing.assert_close(features["image_tokens"][1:], output["penultimate_hidden_states"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features["image_embeds"][1:], output["image_embeds"], atol=1e-4, rtol=1e-4)
    assert features["image_tokens"].shape == (2, 5, 1280) and features["image_embeds"].shape == (2, 24)
    zero = vision.model(pixel_values=torch.zeros(1, 3, 224, 224), intermediate_output=-2)[1]
    torch.testing.assert_close(features["image_tokens_zero"], zero, atol=1e-5, rtol=1e-5)
    black = vision.encode_image(torch.zeros(1, 224, 224, 3))["penultimate_hidden_states"]
    assert (features["image_tokens_zero"] - black).abs().max() > 1e-3
    assert identity.encoder == "clip_vision" and len(identity.photos) == 2


def face(*box: float) -> Faces:
    """One face by its box."""
    return Faces(torch.tensor([box]), torch.zeros(1, 5, 2), torch.ones(1))


def test_faces_are_encoded_in_their_squares(vision: Any, pictures: torch.Tensor) -> None:
    batch = FaceBatch((face(20, 30, 60, 90), face(130, 90, 170, 130)), (120, 160), "user")
    result = LikenessEncodeImage().encode(pictures, vision, batch, margin=0.0)["result"]
    assert tuple(result[1].shape) == (2, 224, 224, 3)
    for number, crop in enumerate((pictures[0, 30:90, 10:70], pictures[1, 80:120, 120:160])):
        expected = vision.encode_image(crop[None])["penultimate_hidden_states"][0]
        torch.testing.assert_close(result[0].features["image_tokens"][number], expected, atol=1e-4, rtol=1e-4)


def test_a_picture_without_a_face_follows_the_policy(vision: Any, pictures: torch.Tensor) -> None:
    batch = FaceBatch((face(20, 30, 60, 90), Faces.none()), (120, 160), "user")
    node = LikenessEncodeImage()
    with pytest.raises(NoFaceFound, match="image 1"):
        node.encode(pictures, vision, batch)
    assert len(node.encode(pictures, vision, batch, on_missing_face="skip")["result"][0]) == 1
    kept = node.encode(pictures, vision, batch, on_missing_face="keep")["result"][0]
    assert len(kept) == 2 and float(kept.features["image_embeds"][1].abs().sum()) == 0.0


@pytest.mark.parametrize("kind", VARIANT)
@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_every_layer_runs_and_nothing_stays(tmp_path: Path, identity: Any, base: str, kind: str) -> None:
    name = {"sd15": "SD15", "sdxl": "SDXL"}[base]
    model, loaded = tiny_model(name), adapter_file(tmp_path, base, kind)
    patched = LikenessApplyIdentity().apply(model, loaded, identity, 0.8, 0.0, 1.0)[0]
    for rows in ((1, 0), (0,)):
        assert patched_calls(patched, name, rows) == ATTENTION_LAYERS[name]
    before = sample(model, steps=1)
    assert (sample(patched, steps=1) - before).abs().max() > 1e-4
    off = apply_identity(model, loaded, identity, ApplyOptions(strength=0.0))
    assert torch.equal(sample(off, steps=1), before)
    assert torch.equal(sample(model, steps=1), before)


def test_a_layer_gives_the_official_sum(tmp_path: Path, identity: Any) -> None:
    """Text attention plus strength times picture attention; the negative row has the zero picture's tokens."""
    model, loaded = tiny_model("SD15"), adapter_file(tmp_path, "sd15", "plus")
    patched = apply_identity(model, loaded, identity, ApplyOptions(strength=0.6))
    tokens = loaded.adapter.tokens(identity, TokenOptions())
    layer = unet_layers(model)[5]
    patch = patched.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key]
    q, k, v = (torch.randn(2, rows, layer.width) for rows in (4, 7, 7))
    got = patch(q, k, v, {"n_heads": layer.heads, "cond_or_uncond": [1, 0]})
    pairs = [loaded.adapter.keys_values(side)[5] for side in (tokens.uncond, tokens.cond)]
    idk, idv = (torch.cat([pair[part] for pair in pairs]) for part in (0, 1))
    expected = attend(q, k, v, layer.heads) + 0.6 * attend(q, idk, idv, layer.heads)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Attention written out."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return ((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def test_outside_its_mask_the_term_is_zero(tmp_path: Path, identity: Any) -> None:
    """A white corner so small that no token sees it."""
    model, loaded = tiny_model("SD15"), adapter_file(tmp_path, "sd15", "plain")
    mask = torch.zeros(800, 800)
    mask[0, 0] = 1
    nowhere = apply_identity(model, loaded, identity, ApplyOptions(mask=mask))
    torch.testing.assert_close(call_unet(nowhere, "SD15", (1, 0)), call_unet(model, "SD15", (1, 0)), atol=0, rtol=0)


def test_another_vision_model_is_refused_with_both_widths(tmp_path: Path, pictures: torch.Tensor) -> None:
    narrow = clip_vision(tmp_path, width=64, projection=12)
    identity = LikenessEncodeImage().encode(pictures, narrow)["result"][0]
    loaded = adapter_file(tmp_path, "sd15", "plus")
    with pytest.raises(EncoderMismatch, match=r"1280\) of CLIP ViT-H.*\(2, 5, 64\)"):
        apply_identity(tiny_model("SD15"), loaded, identity, ApplyOptions())
