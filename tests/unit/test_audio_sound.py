"""Sound in memory: what is refused, one channel from many, other rates, voices on one clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from likeness_pack.adapters.audio_resample import resampled
from likeness_pack.adapters.audio_sound import BadSound, Sound, as_audio, as_sound, at_rate, delayed, joined, mixed
from torch import Tensor


def audio(samples: Tensor, rate: Any = 16_000) -> dict[str, Any]:
    """The host's AUDIO."""
    return {"waveform": samples, "sample_rate": rate}


def sine(hertz: float, rate: int, seconds: float = 0.5) -> Tensor:
    """(1, N) a tone of amplitude 1."""
    time = torch.arange(round(rate * seconds), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * hertz * time)[None].float()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "found nothing"),
        ("song.wav", "found a str"),
        ({"waveform": torch.zeros(1, 1, 5)}, "waveform and sample_rate"),
        (audio(torch.zeros(1, 1, 0)), "which is empty"),
        (audio(torch.zeros(0, 2, 9)), "which is empty"),
        (audio(torch.zeros(2, 9)), r"shape \(2, 9\)"),
        (audio(torch.tensor([[[0.0, float("nan"), float("inf")]]])), "2 that are not a number"),
        (audio(torch.zeros(1, 1, 9), 0), "a sample rate of 1 or more"),
        (audio(torch.zeros(1, 1, 9), float("nan")), "a sample rate of 1 or more"),
        (audio(torch.zeros(1, 1, 9), "44100"), "a sample rate of 1 or more"),
        (audio(torch.zeros(1, 1, 9, dtype=torch.complex64)), "a waveform"),
    ],
)
def test_odd_audio_gets_one_sentence(value: Any, words: str) -> None:
    with pytest.raises(BadSound, match=words) as caught:
        as_sound(value)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_channels_are_averaged_and_batches_are_tracks() -> None:
    samples = torch.randn(3, 8, 50)
    sound = as_sound(audio(samples, 192_000))
    assert sound.tracks == 3 and sound.rate == 192_000
    torch.testing.assert_close(sound.samples, samples.mean(dim=1))
    assert len(set(sound.hashes())) == 3
    back = as_audio(sound)
    assert back["waveform"].shape == (3, 1, 50) and as_sound(back).hashes() == sound.hashes()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 192_000])
def test_a_tone_keeps_pitch_place_and_loudness(rate: int) -> None:
    found = resampled(sine(1000, rate), rate, 16_000)
    expected = sine(1000, 16_000)
    assert found.shape == expected.shape
    torch.testing.assert_close(found[:, 200:-200], expected[:, 200:-200], atol=2e-6, rtol=0)


@pytest.mark.parametrize("hertz", [8100, 9000, 20_000])
def test_tones_above_the_new_half_rate_vanish(hertz: float) -> None:
    found = resampled(sine(hertz, 44_100), 44_100, 16_000)[:, 300:-300]
    assert float(found.abs().max()) < 1e-5  # 100 dB below


def test_the_same_rate_changes_nothing() -> None:
    sound = Sound(torch.randn(1, 99), 16_000)
    assert at_rate(sound, 16_000) is sound
    assert resampled(sound.samples, 44_100, 44_100) is sound.samples


@pytest.mark.parametrize(("count", "rate"), [(1, 44_100), (2, 8000), (7, 192_000), (441, 44_100), (442, 44_100)])
def test_lengths_are_whole_samples_of_the_new_rate(count: int, rate: int) -> None:
    assert resampled(torch.ones(2, count), rate, 16_000).shape == (2, math.ceil(count * 16_000 / rate))


def test_voices_share_one_clock() -> None:
    first, second = Sound(torch.ones(1, 100), 1000), Sound(torch.full((1, 60), 0.5), 1000)
    both = joined([first, second], [0.02, 0.1])
    assert both.samples.shape == (2, 160) and both.rate == 1000
    assert bool((both.samples[0, :20] == 0).all()) and bool((both.samples[0, 20:120] == 1).all())
    assert bool((both.samples[0, 120:] == 0).all())
    assert bool((both.samples[1, :100] == 0).all()) and bool((both.samples[1, 100:] == 0.5).all())
    assert float(mixed(both).samples.max()) == 1.0
    quiet = mixed(Sound(both.samples / 4, 1000)).samples
    torch.testing.assert_close(quiet, both.samples.sum(dim=0, keepdim=True) / 4)


def test_the_highest_rate_is_kept() -> None:
    both = joined([Sound(sine(440, 16_000), 16_000), Sound(sine(440, 48_000), 48_000)], [0, 0])
    assert both.rate == 48_000 and both.samples.shape == (2, 24_000)
    torch.testing.assert_close(both.samples[0, 600:-600], both.samples[1, 600:-600], atol=2e-6, rtol=0)


@pytest.mark.parametrize("start", [-0.1, float("nan"), float("inf")])
def test_a_start_before_the_clip_is_refused(start: float) -> None:
    with pytest.raises(BadSound, match="a start of 0 seconds or more"):
        delayed(Sound(torch.ones(1, 9), 16_000), start)


def test_no_sound_cannot_be_joined() -> None:
    with pytest.raises(BadSound, match="one or more sounds"):
        joined([], [])
