"""Families on transformers that only a newer ComfyUI has: Flux, Wan, HunyuanVideo, of the host's own classes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .families import LIMITS, Case
from .families_unet import seeded
from .sampling import Sampled


def pulid(folder: Path) -> Iterator[Case]:
    """PuLID at Flux's published depth."""
    from likeness_pack.adapters import registry
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_pulid import flux_conditioning, flux_shapes, pulid_identity, tiny_flux, write

    model, path = tiny_flux(), write(folder / "pulid_flux.safetensors", flux_shapes())
    loaded, given = LoadedAdapter(registry.load(path)), functools.cache(pulid_identity)

    def apply(people: int, strength: float, first: int) -> Any:
        patched = model
        for number in range(people):
            options = ApplyOptions(strength=strength)
            patched = apply_identity(patched, loaded, given(first + number), options)
        return patched

    sampled = Sampled(seeded(1, 16, 8, 6), flux_conditioning(seed=1), flux_conditioning(seed=2), 1.0)
    yield Case("pulid_flux", "PuLID, Flux", model, loaded, path.stat().st_size, apply, sampled, given=given)


def garment(folder: Path) -> Iterator[Case]:
    """DreamFit on Flux: longer keys in every block."""
    from dreamfit_models import flux_model, write_dit_file
    from likeness_pack.adapters import registry
    from likeness_pack.inject.garment import ReferenceOptions, apply_reference, encode_reference
    from likeness_pack.inject.loaded import LoadedAdapter

    model, path = flux_model(), write_dit_file(folder / "dreamfit_flux.bin")
    loaded = LoadedAdapter(registry.load(path))
    text = [[seeded(1, 7, 48, seed=5), {"pooled_output": seeded(1, 32, seed=6), "guidance": 3.5}]]
    known: dict[int, Any] = {}

    def apply(people: int, strength: float, first: int) -> Any:
        if first not in known:
            known[first] = encode_reference(loaded, model, seeded(1, 16, 6, 10, seed=first), text)
        return apply_reference(model, known[first], ReferenceOptions(end_percent=0.5 + strength / 2))

    sampled = Sampled(seeded(1, 16, 8, 6, seed=2), text, text, 1.0)
    size = path.stat().st_size
    yield Case("dreamfit", "DreamFit, Flux", model, loaded, size, apply, sampled, people=(1,), limits=LIMITS)


def avatar(folder: Path) -> Iterator[Case]:
    """HunyuanVideo-Avatar at published depth: each character speaks inside a mask."""
    import avatar_models
    from likeness_pack.inject.hunyuan_avatar import AvatarOptions, apply_avatar
    from likeness_pack.inject.hunyuan_avatar_files import load_avatar
    from likeness_pack.tools.standins import hunyuan_avatar as standin
    from safetensors.torch import save_file

    width, path = 64, folder / "avatar.safetensors"
    save_file(standin.filled(standin.checkpoint(text=width)), path)
    model, loaded, _ = load_avatar(path, None)
    left = torch.zeros(6, 8)
    left[:, :4] = 1.0
    picture = seeded(1, 16, 1, 6, 8, seed=2)

    known: dict[int, Any] = {}

    def given(number: int) -> None:
        known[number] = avatar_models.sound(1, 5, seed=number)

    def apply(people: int, strength: float, first: int) -> Any:
        masks = (left, 1 - left, left, 1 - left)[:people]
        options = AvatarOptions(strength=strength, masks=masks)
        sound = known[first] if people == 1 and first in known else avatar_models.sound(people, 5, seed=first)
        return apply_avatar(model, loaded, picture, sound, options)

    texts = avatar_models.text(14, 9, width, seed=1), avatar_models.text(14, 7, width, seed=2)
    sampled = Sampled(seeded(1, 16, 2, 6, 8, seed=1), *texts, 1.0)
    size = path.stat().st_size
    subject = "HunyuanVideo-Avatar"
    yield Case("hunyuan_avatar", subject, model, loaded, size, apply, sampled, limits=LIMITS, given=given)


def emotion(folder: Path) -> Iterator[Case]:
    """The emotion module of a trained layout on HunyuanVideo."""
    from likeness_pack.adapters import registry
    from likeness_pack.adapters.families.avatar_emotion.layout import EmotionFacts
    from likeness_pack.inject.avatar_emotion import EmotionOptions, apply_emotion
    from likeness_pack.inject.loaded import LoadedAdapter
    from likeness_pack.training.avatar_dit_sizes import DitSizes
    from likeness_pack.training.avatar_emotion import EmotionOptions as Layout
    from likeness_pack.training.avatar_emotion import fresh_network, save_emotion
    from tiny_avatar_emotion import tiny_base
    from tiny_hunyuan import POOLED, TEXT, WIDTH, clip_noise, hunyuan_conditioning, tiny_hunyuan

    sizes = DitSizes(WIDTH, 2, 4, 2, TEXT, POOLED, 16, (8, 12, 12))
    network = fresh_network(Layout(inner=32, heads=2, emotion_width=32), tiny_base(0, sizes))
    for block in network.attentions:
        block.gate.weight.data.fill_(0.7)
    path = folder / "emotion.safetensors"
    save_emotion(path, network, EmotionFacts(1, 1, 64))
    model, loaded = tiny_hunyuan(sizes.double, sizes.single), LoadedAdapter(registry.load(path))
    given = functools.cache(lambda number: seeded(1, 16, 1, 6, 4, seed=number))

    def apply(people: int, strength: float, first: int) -> Any:
        return apply_emotion(model, loaded, given(first), EmotionOptions(strength=strength))

    sampled = Sampled(clip_noise(3, 4, 6), hunyuan_conditioning(1), hunyuan_conditioning(2), 1.0)
    size = path.stat().st_size
    subject = "Avatar emotion, HunyuanVideo"
    yield Case("avatar_emotion", subject, model, loaded, size, apply, sampled, people=(1,), given=given)


def pose(folder: Path) -> Iterator[Case]:
    """DreamID-V's pose on Wan."""
    from dreamid_v_models import TEXT_TOKENS, load_file
    from likeness_pack.inject.dreamid_v import apply_pose
    from likeness_pack.tools.standins import dreamid_v as standins
    from likeness_pack.tools.standins.fill import filled_all

    path = folder / "dreamid_v.safetensors"
    model, loaded = load_file(path, filled_all(standins.pose((128, 256), 3), torch.float32))

    @functools.cache
    def given(number: int) -> Any:
        return torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(number))

    def apply(people: int, strength: float, first: int) -> Any:
        return apply_pose(model, loaded, given(first), strength)

    extra = {"concat_latent_image": seeded(1, 32, 2, 4, 6, seed=3), "reference_latents": [seeded(1, 16, 1, 4, 6)]}
    text = [[seeded(1, TEXT_TOKENS, 4096, seed=2), extra]]
    sampled = Sampled(seeded(1, 16, 2, 4, 6, seed=1), text, text, 1.0)
    size = path.stat().st_size
    subject = "DreamID-V pose, Wan"
    yield Case("dreamid_v", subject, model, loaded, size, apply, sampled, people=(1,), given=given)


BUILDERS = {
    "pulid_flux": pulid,
    "dreamfit": garment,
    "hunyuan_avatar": avatar,
    "avatar_emotion": emotion,
    "dreamid_v": pose,
}
