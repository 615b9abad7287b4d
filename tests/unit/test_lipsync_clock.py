"""The clock of lip-sync: no frame drifts from its sound at any rate, where the official program does."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clip_files import drawn_frames, write_raw_clip
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.adapters.audio_sound import BadSound
from likeness_pack.adapters.encoders.whisper import windows_musetalk_v1 as v1
from likeness_pack.adapters.encoders.whisper import windows_musetalk_v15 as v15
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.adapters.families.musetalk import voice as voices
from likeness_pack.media.errors import BadClip
from likeness_pack.media.facts import read_facts
from likeness_pack.media.rate import true_rate
from torch import Tensor

RATES = [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50), Fraction(60)]
STEP = Fraction(1, 50)
MINUTES = 10 * 60


def steps(seconds: int) -> Tensor:
    """States (T, 5, 384) whose numbers are those of their steps; double, so that ten minutes stay exact."""
    return torch.arange(seconds * 50, dtype=torch.float64)[:, None, None].expand(-1, 5, 384)


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.5g}")
def test_the_last_frame_of_ten_minutes_hears_its_own_time(rate: Fraction) -> None:
    frames = math.floor(MINUTES * rate)
    moments = [number / rate for number in (0, 1, frames // 2, frames - 2, frames - 1)]
    # A window of v1 is centred on its frame, the fifth of ten steps; v1.5 begins 4 or 2 or 6 steps before.
    bound = max(STEP, 1 / (2 * rate))
    for windows, place in ((voices._v1, v1.BEFORE), (voices._v15, v15.LEFT * math.ceil(50 / rate))):
        found = windows(steps(MINUTES), moments, rate)[:, 5 * place, 0]
        off = [abs(Fraction(float(one)) * STEP - moment) for one, moment in zip(found, moments, strict=True)]
        assert max(off) < bound


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.5g}")
def test_windows_of_a_clip_are_those_of_the_whole_sound(rate: Fraction) -> None:
    """A clip's chunks and the node for frames hear the same, at whole rates exactly as the official program."""
    heard = torch.randn(500, 5, 8, generator=torch.Generator().manual_seed(1))
    frames = v15.frame_count(160_000, float(rate))
    together = v15.windows(heard, 160_000, float(rate)).flatten(1, 2)
    found = voices._v15(heard, [number / rate for number in range(frames)], rate)
    assert found.shape == together.shape
    # Where frames fall on a step, a rate that is no whole number may be rounded to either side of it.
    same = (found == together).flatten(1).all(1)
    assert bool(same.all()) if rate.denominator == 1 else float(same.float().mean()) > 0.99
    official = v15.windows(heard, 160_000, float(rate), official_rate=True).flatten(1, 2)
    if rate.denominator == 1 and rate <= 50:
        assert torch.equal(found, official)
    first = heard[v1.indices(500, frames, float(rate))].flatten(1, 2)
    mine = voices._v1(heard, [number / rate for number in range(frames)], rate)
    assert float((first == mine).flatten(1).all(1).float().mean()) > 0.99


def test_the_official_rate_drifts_by_a_second_in_half_a_minute() -> None:
    """What is mended here: 29.97 fps runs as 29."""
    number = 899
    moment = Fraction(number * 1001, 30000)
    official = v15.indices([number], 29.0)[0, v15.LEFT * 2]
    assert float(official) / 50 - float(moment) > 0.9
    assert abs(float(v15.indices([number], 30000 / 1001)[0, v15.LEFT * 2]) / 50 - float(moment)) < 0.02


def test_sixty_frames_a_second_have_silence_enough_at_the_end() -> None:
    """The official program stops there: its last windows reach beyond its zeros."""
    heard = torch.ones(50, 5, 4)
    found = v15.windows(heard, 16_000, 60.0)
    assert len(found) == 60 and bool((found[-1, :3] == 1).all()) and not bool(found[-1, 4:].any())


def features(system: str = "musetalk_v15") -> AudioFeatures:
    rows = torch.arange(6.0)[None, :, None, None, None].expand(2, 6, 10, 5, 384)
    return AudioFeatures(system, rows, 29.97, 3203, (0.0, 0.0), ("a", "b"))  # type: ignore[arg-type]


def test_frame_n_hears_window_n_of_features() -> None:
    voice = voices.voice_of_features(features(), "v15", 1)
    moments = [number / voice.fps for number in range(6)]
    assert voice.tokens(moments)[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5] and voice.frames == 6
    assert [voice.heard(number / voice.fps) for number in (0, 5, 6, 7)] == [True, True, False, False]


def test_features_of_another_version_or_track_are_refused() -> None:
    with pytest.raises(EncoderMismatch, match="MuseTalk v1: expected audio features for MuseTalk v1 and UnAvgLip"):
        voices.voice_of_features(features(), "v1", 0)
    with pytest.raises(BadSound, match="expected one of 2 tracks, found track 3; set track to 1..2"):
        voices.voice_of_features(features(), "v15", 2)


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.5g}")
def test_the_rate_of_a_file_is_told_by_its_stamps(tmp_path: Path, rate: Fraction) -> None:
    """The header's average counts the last frame's length, which these files get wrong."""
    stamps = [round(number * 90000 / rate) for number in range(9)]
    path = write_raw_clip(tmp_path / "in.mp4", drawn_frames(9), stamps, time_base=Fraction(1, 90000))
    facts = read_facts(path)
    assert true_rate(path, facts) == rate and (facts.rate != rate or rate == 25)


def test_a_clip_of_changing_rate_has_its_mean(tmp_path: Path) -> None:
    path = write_raw_clip(tmp_path / "in.mkv", drawn_frames(4), [0, 40, 80, 200], time_base=Fraction(1, 1000))
    assert true_rate(path, read_facts(path)) == Fraction(15)
    path = write_raw_clip(tmp_path / "one.mkv", drawn_frames(2), [0, 70], time_base=Fraction(1, 1000))
    assert true_rate(path, read_facts(path)) == Fraction(1000, 70)
    (tmp_path / "text.mp4").write_text("no clip", encoding="utf-8")
    with pytest.raises(BadClip):
        true_rate(tmp_path / "text.mp4", read_facts(path))
