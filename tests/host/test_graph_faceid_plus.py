"""FaceID-Plus through the nodes with the host's own CLIP vision class: width of ViT-H, few layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_encoders import clip_vision as small_clip_vision
from host_inprocess import sample, tiny_model
from identities import SeededEncoder
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.nodes.adapter import LikenessApplyIdentity
from likeness_pack.nodes.detect import LikenessDetectFaces, LikenessLoadDetector
from likeness_pack.nodes.encoder import LikenessEncodeIdentity
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from torch import Tensor

WIDTHS = (32, 64, 128, 128)


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    from skimage import data

    return torch.from_numpy(np.array(data.astronaut())).float()[None] / 255


@pytest.fixture(scope="module")
def clip_vision(module_folders: ModuleFolders) -> Any:
    return small_clip_vision(module_folders.mktemp("clip"), projection=64, depth=3, patch=14)


def encode(images: Tensor, clip_vision: Any) -> Identity:
    (detector, _) = LikenessLoadDetector().load("mtcnn")
    faces, kept, *_ = LikenessDetectFaces().detect(images, detector, 0.0, "error")["result"]
    node = LikenessEncodeIdentity()
    encoder = LoadedEncoder(SeededEncoder())
    return node.encode(kept, faces, encoder, "best", "error", clip_vision=clip_vision)["result"][0]


@pytest.fixture(scope="module")
def identity(astronaut: Tensor, clip_vision: Any) -> Identity:
    return encode(astronaut, clip_vision)


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Path:
    return module_folders.mktemp("plus")


def latent(adapter: LoadedAdapter | None, identity: Identity, **options: Any) -> Tensor:
    model = tiny_model("SD15")
    if adapter is None:
        return sample(model)
    values = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **options}
    (patched,) = LikenessApplyIdentity().apply(model, adapter, identity, **values)
    return sample(patched)


def plus(folder: Path, kind: str) -> LoadedAdapter:
    return LoadedAdapter(load(write_standin(kind, folder, WIDTHS), kind="adapter"))


def test_the_picture_encoder_sees_the_crop_and_a_zero_picture(astronaut: Tensor, clip_vision: Any) -> None:
    seen: list[Tensor] = []
    patches = clip_vision.model.vision_model.embeddings.patch_embedding
    hook = patches.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    identity = encode(astronaut, clip_vision)
    hook.remove()
    tokens, zero = identity.features["image_tokens"], identity.features["image_tokens_zero"]
    assert tokens.shape == zero.shape == (1, 257, 1280)
    assert torch.isfinite(tokens).all()
    crop, nothing = seen
    assert crop.shape == nothing.shape == (1, 3, 224, 224)
    # Zero after normalisation: the official unconditional input is mean grey and not black.
    assert not nothing.any()
    assert crop.std() > 0.3
    assert (zero - tokens).std() > 0.1 * tokens.std()


def test_plus_v2_on_a_tiny_sd15(identity: Identity, folder: Path) -> None:
    adapter, plain = plus(folder, "faceid-plusv2-sd15"), latent(None, identity)
    shown = latent(adapter, identity)
    assert torch.isfinite(shown).all()
    assert (shown - plain).abs().max() > 1e-3
    assert (latent(adapter, identity, shortcut_scale=3.0) - shown).abs().max() > 1e-4
    assert torch.equal(latent(adapter, identity, strength=0.0, lora_strength=0.0), plain)


def test_the_variants_differ(identity: Identity, folder: Path) -> None:
    first, second = (latent(plus(folder, kind), identity) for kind in ("faceid-plus-sd15", "faceid-plusv2-sd15"))
    assert (first - second).abs().max() > 1e-4


def test_an_identity_without_image_tokens_is_told(astronaut: Tensor, folder: Path) -> None:
    bare = encode(astronaut, None)
    with pytest.raises(EncoderMismatch, match="CLIP"):
        latent(plus(folder, "faceid-plusv2-sd15"), bare)


def test_a_clip_of_another_width_is_told(astronaut: Tensor, folder: Path, module_folders: ModuleFolders) -> None:
    narrow = small_clip_vision(module_folders.mktemp("narrow"), width=1024, projection=64, depth=3, patch=14)
    with pytest.raises(EncoderMismatch, match=r"1280.*1024|1024.*1280"):
        latent(plus(folder, "faceid-plusv2-sd15"), encode(astronaut, narrow))
