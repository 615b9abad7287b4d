"""HunyuanVideo-Avatar and Avatar Emotion on one MODEL, in any order: each is replaced or removed beneath the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import avatar_models as avatar
import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.families.avatar_emotion.layout import EmotionFacts
from likeness_pack.inject.avatar_emotion import apply_emotion
from likeness_pack.inject.hunyuan_avatar import AvatarOptions, apply_avatar
from likeness_pack.inject.hunyuan_avatar_files import load_avatar
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.tools.standins import hunyuan_avatar as standin
from likeness_pack.training.avatar_dit import VideoDit
from likeness_pack.training.avatar_dit_sizes import DitSizes
from likeness_pack.training.avatar_emotion import AvatarBase, EmotionOptions, fresh_network, save_emotion
from module_folders import ModuleFolders
from safetensors.torch import save_file
from tiny_hunyuan import need_hunyuan
from torch import Tensor

DOUBLE, SINGLE, TEXT = 4, 2, 64
FRAMES, HEIGHT, WIDTH = 2, 4, 6
OFF = AvatarOptions(strength=0.0, image_strength=0.0)
FIRST, SECOND = (avatar.sound(1, 4 * FRAMES - 3, seed=seed) for seed in (1, 2))


def noise(frames: int, seed: int) -> Tensor:
    return torch.randn(1, 16, frames, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


PICTURE, FACE = noise(1, 2), noise(1, 3)
POSITIVE = avatar.text(9, 7, TEXT)


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def parts(module_folders: ModuleFolders) -> tuple[Any, LoadedAdapter, LoadedAdapter]:
    """MODEL, Avatar's adapter, and an emotion module with open gates."""
    need_hunyuan()
    folder = module_folders.mktemp("beside")
    save_file(standin.filled(standin.checkpoint(standin.HEAD, DOUBLE, SINGLE, TEXT)), folder / "avatar.safetensors")
    model, loaded, _ = load_avatar(folder / "avatar.safetensors", None)
    base = AvatarBase(VideoDit(DitSizes(standin.HEAD, 1, DOUBLE, 1, TEXT)))
    network = fresh_network(EmotionOptions(inner=32, heads=2, emotion_width=32), base)
    for block in network.attentions:
        block.gate.weight.data.fill_(0.7)
    save_emotion(folder / "emotion.safetensors", network, EmotionFacts(1, 1, 64))
    return model, loaded, LoadedAdapter(registry.load(folder / "emotion.safetensors"))


def sampled(model: Any) -> Tensor:
    return avatar.sample(model, POSITIVE, None, noise(FRAMES, 1))


def test_avatar_is_replaced_beneath_an_emotion(parts: Any) -> None:
    """Avatar, emotion, another Avatar: bit-equal to the emotion with that other one alone."""
    model, loaded, emotion = parts
    felt = apply_emotion(apply_avatar(model, loaded, PICTURE, FIRST), emotion, FACE)
    again = apply_avatar(felt, loaded, PICTURE, SECOND)
    alone = apply_avatar(apply_emotion(model, emotion, FACE), loaded, PICTURE, SECOND)
    assert torch.equal(sampled(again), sampled(alone))
    assert not torch.equal(sampled(again), sampled(felt))


def test_avatar_is_removed_beneath_an_emotion(parts: Any) -> None:
    """With both strengths at 0 the emotion alone is left, and without it the model never patched: bit-equal."""
    model, loaded, emotion = parts
    before = sampled(model)
    felt = apply_emotion(apply_avatar(model, loaded, PICTURE, FIRST), emotion, FACE)
    with_both = sampled(felt)
    only = sampled(apply_emotion(model, emotion, FACE))
    assert torch.equal(sampled(apply_avatar(felt, loaded, PICTURE, FIRST, OFF)), only)
    assert not torch.equal(only, before)
    assert torch.equal(sampled(felt), with_both), "the MODEL that came in keeps its Avatar"
    assert torch.equal(sampled(model), before)


def test_an_emotion_is_replaced_beneath_avatar(parts: Any) -> None:
    """Emotion, Avatar, the same emotion: bit-equal to each of them once."""
    model, loaded, emotion = parts
    once = apply_avatar(apply_emotion(model, emotion, FACE), loaded, PICTURE, FIRST)
    assert torch.equal(sampled(apply_emotion(once, emotion, FACE)), sampled(once))


def test_their_order_is_of_no_account(parts: Any) -> None:
    """Each reads the block's own tokens and none what the other added."""
    model, loaded, emotion = parts
    felt = apply_emotion(apply_avatar(model, loaded, PICTURE, FIRST), emotion, FACE)
    heard = apply_avatar(apply_emotion(model, emotion, FACE), loaded, PICTURE, FIRST)
    torch.testing.assert_close(sampled(felt), sampled(heard), atol=1e-5, rtol=1e-5)
    assert (sampled(felt) - sampled(apply_avatar(model, loaded, PICTURE, FIRST))).abs().max() > 1e-3
