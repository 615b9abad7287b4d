"""The nodes for sound, in the host's process: files, tracks on one clock, features, refusals, memory."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_inprocess import engine
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.adapters.audio_sound import BadSound
from likeness_pack.adapters.errors import EncoderMismatch, MissingModelFile
from likeness_pack.adapters.families.imagineid.arch import FactorSizes, VoiceFactors
from likeness_pack.adapters.families.imagineid.layout import FactorFacts
from likeness_pack.inject import audio as host_audio
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths, model_management
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.nodes.audio import (
    LikenessAudioFeatures,
    LikenessJoinAudioTracks,
    LikenessLoadAudioEncoder,
    LikenessLoadSound,
)
from likeness_pack.nodes.imagineid import LikenessVoiceFactors
from likeness_pack.tools.standins.command import write_standin
from likeness_pack.training.imagineid import save_factors
from module_folders import ModuleFolders


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Iterator[Path]:
    """A folder of encoders with a blank and Chinese letters in its name."""
    engine()
    model_folders.register_model_folders()
    path = module_folders.mktemp("voices") / "My voices 声音"
    path.mkdir()
    table = folder_paths().folder_names_and_paths
    table["face_encoders"][0].append(str(path))
    yield path
    table["face_encoders"][0].remove(str(path))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> LoadedEncoder:
    """whisper-tiny of little width, through its loader node."""
    path = write_standin("whisper-tiny", folder, (64,))
    loaded, report = LikenessLoadAudioEncoder().load(path.name)
    assert "Whisper" in report and "commercial use: allowed" in report
    return loaded


@pytest.fixture
def sounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An input folder with a stereo file of sound in a sub-folder."""
    root = tmp_path / "input"
    (root / "speech 话").mkdir(parents=True)
    tone = np.sin(np.arange(22_050) * 2 * math.pi * 440 / 22_050)
    pair = np.stack([tone, np.zeros_like(tone)], axis=1)
    with wave.open(str(root / "speech 话" / "one.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes((pair * 16_000).astype("<i2").tobytes())
    (root / "notes.txt").write_text("no sound", encoding="utf-8")
    monkeypatch.setattr(host_audio, "input_folder", lambda: root)
    return root


def defaults(node: type, **given: Any) -> dict[str, Any]:
    """Every input with its default, and those given."""
    schema = node.INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    return {name: spec[1]["default"] for name, spec in schema.items() if "default" in spec[1]} | given


def hear(audio: Any, encoder: Any, **given: Any) -> tuple[AudioFeatures, int, str]:
    """Run Audio Features and return its outputs."""
    inputs = defaults(LikenessAudioFeatures, audio=audio, encoder=encoder, **given)
    found = LikenessAudioFeatures().hear(**inputs)
    assert found["ui"]["text"] == [found["result"][2]]
    return found["result"]


def noise(seconds: float, tracks: int = 1, channels: int = 2, rate: int = 16_000) -> dict[str, Any]:
    """The host's AUDIO."""
    chance = torch.Generator().manual_seed(tracks)
    waveform = 0.1 * torch.randn(tracks, channels, round(seconds * rate), generator=chance)
    return {"waveform": waveform, "sample_rate": rate}


def test_a_file_becomes_features(sounds: Path, encoder: LoadedEncoder) -> None:
    names = LikenessLoadSound.INPUT_TYPES()["required"]["file"][0]
    assert names == ["speech 话/one.wav"]
    found = LikenessLoadSound().load(names[0])
    audio, seconds, report = found["result"]
    assert audio["waveform"].shape == (1, 2, 22_050) and audio["sample_rate"] == 22_050 and seconds == 1.0
    assert "1.00 s, 2 channels, 22050 Hz" in report
    features, frames, told = hear(audio, encoder)
    assert features.features.shape == (1, 25, 10, 5, 64) and frames == 25
    assert "HunyuanVideo-Avatar" in told and "resampled from 22050" in told


def test_a_replaced_file_is_read_again(sounds: Path) -> None:
    before = LikenessLoadSound.IS_CHANGED("speech 话/one.wav")
    assert before and before == LikenessLoadSound.IS_CHANGED("speech 话/one.wav")
    path = sounds / "speech 话" / "one.wav"
    path.write_bytes(path.read_bytes()[:-2])
    assert LikenessLoadSound.IS_CHANGED("speech 话/one.wav") != before
    assert LikenessLoadSound.IS_CHANGED("gone.wav") == ""


@pytest.mark.parametrize("name", ["", "gone.wav", "../secret.wav", "/etc/passwd"])
def test_files_outside_of_the_input_folder_are_refused(name: str, sounds: Path) -> None:
    (sounds.parent / "secret.wav").write_bytes(b"RIFF")
    with pytest.raises(MissingModelFile, match="input folder"):
        LikenessLoadSound().load(name)


def test_two_voices_on_one_clock(encoder: LoadedEncoder) -> None:
    first, second = noise(1.0), noise(1.0, channels=1)
    inputs = defaults(LikenessJoinAudioTracks, audio_1=first, audio_2=second, start_2=0.6)
    tracks, mix, report = LikenessJoinAudioTracks().join(**inputs)["result"]
    assert tracks["waveform"].shape == (2, 1, 25_600) and mix["waveform"].shape == (1, 1, 25_600)
    assert "track 2: audio_2, 1.00 s from 0.6 s on" in report
    features, frames, _ = hear(tracks, encoder)
    assert features.tracks == 2 and frames == 40
    alone = hear(second, encoder, start=0.6)[0]
    assert torch.equal(alone.features[0], features.features[1])
    other = hear(noise(1.6, channels=1), encoder)[0]
    assert not torch.equal(other.features[0], features.features[0])


def test_a_gap_between_connected_voices_keeps_their_order() -> None:
    inputs = {"audio_1": noise(0.1), "start_1": 0.0, "audio_4": noise(0.2), "start_4": 0.0, "audio_2": None}
    tracks, _, report = LikenessJoinAudioTracks().join(**inputs)["result"]
    assert tracks["waveform"].shape == (2, 1, 3200) and "track 2: audio_4" in report


@pytest.mark.parametrize(("system", "fps", "frames"), [("musetalk_v1", 29.97, 29), ("musetalk_v15", 60.0, 60)])
def test_musetalk_at_broken_and_high_rates(system: str, fps: float, frames: int, encoder: LoadedEncoder) -> None:
    features, count, _ = hear(noise(1.0), encoder, system=system, fps=fps)
    assert count == features.frames == frames and bool(torch.isfinite(features.features).all())


def test_the_official_count_of_musetalk(encoder: LoadedEncoder) -> None:
    assert hear(noise(1.0), encoder, system="musetalk_v1", official_frames=True)[1] == 27
    assert hear(noise(2.0), encoder, system="musetalk_v15", fps=29.97, official_frames=True)[1] == 58
    assert hear(noise(1.0), encoder, most_frames=7)[1] == 7


def test_odd_sound_is_refused_by_one_sentence(encoder: LoadedEncoder) -> None:
    with pytest.raises(BadSound, match="found nothing"):
        hear(None, encoder)
    with pytest.raises(BadSound, match="at least one video frame"):
        hear({"waveform": torch.zeros(1, 1, 1), "sample_rate": 44_100}, encoder)
    with pytest.raises(BadSound, match="expected 25 fps or 12.5 fps"):
        hear(noise(1.0), encoder, fps=30.0)


def test_a_face_encoder_is_refused(folder: Path) -> None:
    path = write_standin("musiq", folder)
    with pytest.raises(EncoderMismatch, match="whisper-tiny"):
        LikenessLoadAudioEncoder().load(path.name)


@pytest.fixture(scope="module")
def voice(folder: Path) -> LoadedEncoder:
    """A file of voice factors, through the loader node."""
    torch.manual_seed(0)
    facts = FactorFacts(1, 1, 1, 9, 3, 3, 3, "a probe")
    save_factors(folder / "my factors.safetensors", VoiceFactors(FactorSizes(64, 1, 16, 8, 4)), facts)
    return LikenessLoadAudioEncoder().load("my factors.safetensors")[0]


def test_factors_of_two_voices(voice: LoadedEncoder) -> None:
    found = LikenessVoiceFactors().part(noise(1.0, tracks=2), 0.5, voice)["result"]
    identity, emotion, content, frames, report = found
    assert len(identity) == 2 and identity.features["embedding"].shape == (2, 16) and frames == 37
    assert emotion.features.shape == (2, 37, 1, 1, 4) and content.features.shape == (2, 37, 1, 1, 8)
    assert "own construction" in report and "held out: a probe" in report


def test_voice_factors_refuse_without_a_trained_file(encoder: LoadedEncoder) -> None:
    with pytest.raises(MissingModelFile, match="none is published; train a file with tools/train_imagineid.py"):
        LikenessVoiceFactors().part(noise(1.0), 0.0)
    with pytest.raises(EncoderMismatch, match="train a file with tools/train_imagineid.py"):
        LikenessVoiceFactors().part(noise(1.0), 0.0, encoder)


def test_voice_factors_are_no_whisper_and_hear_no_silence(voice: LoadedEncoder) -> None:
    with pytest.raises(EncoderMismatch, match="expected whisper-tiny"):
        hear(noise(1.0), voice)
    for samples, words in ((torch.zeros(1, 1, 16_000), "silence in track 0"), (torch.full((1, 1, 9), 0.1), "0.04 s")):
        with pytest.raises(BadSound, match=words):
            LikenessVoiceFactors().part({"waveform": samples, "sample_rate": 16_000}, 0.0, voice)
    with pytest.raises(BadSound, match="not a number"):
        LikenessVoiceFactors().part({"waveform": torch.full((1, 1, 9), math.nan), "sample_rate": 16_000}, 0.0, voice)


def test_the_host_owns_the_network(encoder: LoadedEncoder) -> None:
    hear(noise(0.2), encoder)
    assert encoder.managed is not None
    loaded = [getattr(one, "model", None) for one in model_management().current_loaded_models]
    assert any(patcher is encoder.managed.patcher for patcher in loaded)


def test_cancel_stops_before_the_next_piece(encoder: LoadedEncoder) -> None:
    manager = model_management()
    manager.interrupt_current_processing(True)
    try:
        with pytest.raises(BaseException) as stopped:  # noqa: PT011 (the hosts' own class, each has another)
            hear(noise(0.2), encoder)
        assert "Interrupt" in type(stopped.value).__name__
    finally:
        manager.interrupt_current_processing(False)
