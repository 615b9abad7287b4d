"""The three adapters of frame generation: they learn their conditions on a frozen model, stop, go on, and come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch
from likeness_pack.adapters.families.imagineid.frames.arch import FrameAdapters, FrameSizes, sizes_of
from likeness_pack.adapters.families.imagineid.frames.family import FAMILY
from likeness_pack.adapters.families.imagineid.frames.layout import FrameFacts
from likeness_pack.adapters.identity import Identity
from likeness_pack.training.checkpointing import write_tensors
from likeness_pack.training.imagineid_frames import (
    BadFrames,
    FrameOptions,
    Frames,
    FrameTask,
    conditions,
    fresh_adapters,
    right_and_swapped,
    train_frames,
)
from likeness_pack.training.loop import LoopOptions
from torch import Tensor, nn
from torch.nn import functional

SIZES = FrameSizes(identity=6, emotion=5, words=2, context=12, levels=(8, 12), hidden=16)
OPTIONS = FrameOptions(batch=12, words=2, hidden=16)
FACTS = FrameFacts(factors="0123abcd")


class TinyDenoiser(nn.Module):
    """A frozen model with a text and two levels: it knows the noise as far as the picture tells it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.text = nn.Linear(12, 8)
        self.out = nn.Conv2d(20, 4, 3, padding=1)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.2, generator=generator)
        self.requires_grad_(False)

    def forward(self, noisy: Tensor, timesteps: Tensor, words: Tensor, levels: Sequence[Tensor]) -> Tensor:
        first = functional.silu(self.conv_in(noisy) + levels[0] + self.text(words.mean(dim=1))[:, :, None, None])
        second = functional.silu(self.down(first) + levels[1])
        grown = functional.interpolate(second, size=first.shape[2:])
        return noisy + self.out(torch.cat([first, grown], dim=1))


def made(count: int, seed: int) -> Frames:
    """Frames whose latents are told by all three conditions, each a third of it."""
    generator = torch.Generator().manual_seed(seed)
    voice, mood = (torch.randint(2, (count,), generator=generator) * 2.0 - 1 for _ in range(2))
    spot = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    before = torch.randint(2, (count,), generator=generator) * 2.0 - 1
    ones = torch.ones(count, 1, 6, 6)
    latents = torch.cat([(part[:, None, None, None] * ones) for part in (voice, mood, spot, before)], dim=1)
    geometry = (0.5 + 0.5 * spot[:, None, None, None]).expand(-1, 3, 48, 48).contiguous()
    return Frames(
        latents=2 * latents,
        geometry=geometry,
        before=before[:, None, None, None].expand(-1, 4, 6, 6).contiguous(),
        masks=functional.pad(torch.ones(count, 1, 2, 2), (2, 2, 2, 2)),
        identity=voice[:, None].expand(-1, 6).contiguous(),
        emotion=mood[:, None].expand(-1, 5).contiguous(),
    )


@pytest.fixture(scope="module")
def frames() -> Frames:
    return made(48, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_adapter_learns_its_condition(seed: int, frames: Frames, tmp_path: Path) -> None:
    options = replace(OPTIONS, seed=seed)
    path = tmp_path / "mine.safetensors"
    network = train_frames(frames, TinyDenoiser(), path, FACTS, SIZES, options, LoopOptions(120, 2e-2))
    task = FrameTask(frames, TinyDenoiser(), SIZES, options)
    start = task.network
    task.network = network
    others = made(24, 99)
    swaps: dict[str, Any] = {
        "identity": lambda one: replace(one, identity=-one.identity),
        "emotion": lambda one: replace(one, emotion=-one.emotion),
        "geometry": lambda one: replace(one, geometry=1 - one.geometry),
        "before": lambda one: replace(one, before=-one.before),
    }
    for name, swap in swaps.items():
        right, swapped = right_and_swapped(task, others, swap)
        assert right < 0.995 * swapped, f"{name}: {right:.3f} with the right condition, {swapped:.3f} with another's"
    task.network = start
    assert right < right_and_swapped(task, others, swaps["before"])[0]


def test_training_starts_from_the_frozen_model_itself(frames: Frames) -> None:
    network = fresh_adapters(SIZES, 0)
    _, levels = conditions(network, frames, torch.ones(len(frames), 3))
    assert [tuple(one.shape[1:]) for one in levels] == [(8, 6, 6), (12, 3, 3)]
    assert all(bool((one == 0).all()) for one in levels)
    words, _ = conditions(network, frames, torch.zeros(len(frames), 3))
    assert words.shape == (48, 2, 12) and bool((words == 0).all())


def test_the_face_of_the_frame_before_is_not_seen(frames: Frames) -> None:
    network = fresh_adapters(SIZES, 0).mask_guided_blending
    for layer in network.zero_out:
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    changed = torch.where(frames.masks.bool(), torch.full_like(frames.before, 9.0), frames.before)
    for one, other in zip(network(frames.before, frames.masks), network(changed, frames.masks), strict=True):
        assert torch.equal(one, other)
    moved = network(frames.before, frames.masks.roll(1, 3))
    assert not torch.equal(moved[0], network(frames.before, frames.masks)[0])


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_stopped_run_ends_with_the_same_weights(stop: int, frames: Frames, tmp_path: Path) -> None:
    loop = LoopOptions(12, 1e-2, save_every=5)
    whole = train_frames(frames, TinyDenoiser(), tmp_path / "a.safetensors", FACTS, SIZES, OPTIONS, loop)
    path = tmp_path / "b.safetensors"
    train_frames(frames, TinyDenoiser(), path, FACTS, SIZES, OPTIONS, loop, stop_after=stop)
    rest = train_frames(frames, TinyDenoiser(), path, FACTS, SIZES, OPTIONS, loop)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name


def test_a_file_comes_back_through_the_loader(frames: Frames, tmp_path: Path) -> None:
    path = tmp_path / "我的 adapters.safetensors"
    network = train_frames(frames, TinyDenoiser(), path, FACTS, SIZES, OPTIONS, LoopOptions(3, 1e-2))
    adapter = registry.load(path, kind="adapter")
    assert sizes_of(adapter.network) == SIZES == sizes_of(network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(adapter.network.state_dict()[name], tensor), name
    assert adapter.facts == FrameFacts("sd15", 3, 48, "0123abcd") and adapter.context_dim == 12
    told = " ".join(registry.describe(path).notes)
    assert "own construction" in told and "3 steps on 48 frames" in told
    with pytest.raises(EncoderMismatch, match="these three have no node"):
        adapter.tokens(Identity("any", {"embedding": torch.zeros(1, 6)}), TokenOptions())


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": ""}, "none for format"),
        ({"format": "imagineid_adapters_v9"}, "imagineid_adapters_v9"),
        ({"steps": "some"}, "some and 1"),
        ({"steps": "0"}, "0 training steps"),
    ],
)
def test_files_that_do_not_say_what_they_are_are_refused(metadata: Any, words: str, tmp_path: Path) -> None:
    network = fresh_adapters(SIZES, 0)
    path = tmp_path / "odd.safetensors"
    write_tensors(path, network.state_dict(), FrameFacts("sd15", 1, 1, "x").metadata(network) | metadata)
    with pytest.raises(BadCheckpoint, match=words):
        registry.load(path, kind="adapter")


def test_cut_and_foreign_files_are_refused(tmp_path: Path) -> None:
    network, path = fresh_adapters(SIZES, 0), tmp_path / "odd.safetensors"
    tensors, said = network.state_dict(), FrameFacts("sd15", 1, 1, "x").metadata(network)
    write_tensors(path, {name: one for name, one in tensors.items() if name != "spatial_conditional.body.1.bias"}, said)
    with pytest.raises(KeyMismatch, match="1 missing: spatial_conditional"):
        registry.load(path, kind="adapter")
    for words in ("5", "0", ""):
        write_tensors(path, tensors, said | {"words": words})
        answer = FAMILY.recognise(read_header(path))
        assert isinstance(answer, str) and "do not part the 24 rows" in answer
    write_tensors(path, {"x": torch.zeros(1)}, {})
    assert "no textual_inversion" in str(FAMILY.recognise(read_header(path)))


@pytest.mark.parametrize("name", ["latents", "geometry", "before", "masks", "identity", "emotion"])
def test_frames_that_are_not_finite_or_do_not_belong_together_are_named(name: str, frames: Frames) -> None:
    value: Tensor = getattr(frames, name).clone()
    value[3] = float("nan")
    with pytest.raises(BadFrames, match=f"{name}: expected finite numbers"):
        replace(frames, **{name: value})
    if name != "latents":
        with pytest.raises(BadFrames, match=name):
            replace(frames, **{name: value[:-1]})
    with pytest.raises(BadFrames, match="latents"):
        replace(frames, latents=frames.latents[:0])


def test_a_model_that_would_be_trained_is_refused(frames: Frames, tmp_path: Path) -> None:
    denoiser = TinyDenoiser().requires_grad_(True)
    with pytest.raises(BadFrames, match="expected a frozen model"):
        train_frames(frames, denoiser, tmp_path / "a.safetensors", FACTS, SIZES, OPTIONS, LoopOptions(2))


def test_default_sizes_are_those_of_sd15() -> None:
    with torch.device("meta"):
        network = FrameAdapters(FrameSizes())
    assert network.textual_inversion.out.weight.shape == (4 * 768, 128)
    assert [tuple(one.weight.shape) for one in network.mask_guided_blending.zero_out] == [
        (320, 128, 1, 1), (640, 128, 1, 1), (1280, 128, 1, 1), (1280, 128, 1, 1),
    ]  # fmt: skip
