"""Whisper: spectrogram and states against transformers, recognition of both layouts, windows, audio features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.audio_features import AudioFeatures, require_system
from likeness_pack.adapters.audio_sound import BadSound, Sound, as_sound
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.whisper import features as whisper_features
from likeness_pack.adapters.encoders.whisper import mel, windows_hunyuan_avatar, windows_musetalk_v1
from likeness_pack.adapters.encoders.whisper import windows_musetalk_v15 as v15
from likeness_pack.adapters.encoders.whisper.arch import WhisperEncoderNetwork
from likeness_pack.adapters.encoders.whisper.encoder import WhisperEncoder
from likeness_pack.adapters.encoders.whisper.family import FAMILY
from likeness_pack.adapters.encoders.whisper.features import FeatureOptions, audio_features, features_report
from likeness_pack.adapters.encoders.whisper.musetalk_position import positions, with_positions
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch
from likeness_pack.tools.standins.command import write_standin
from likeness_pack.tools.standins.fill import filled_all
from likeness_pack.tools.standins.whisper import whisper, whisper_openai
from module_folders import ModuleFolders
from safetensors.torch import load_file, save_file
from torch import Tensor

WIDTH = 64


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Path:
    return module_folders.mktemp("whisper")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> WhisperEncoder:
    return registry.load(write_standin("whisper-tiny", folder, (WIDTH,)), kind="encoder")


def noise(seconds: float, tracks: int = 1, rate: int = 16_000, seed: int = 0) -> Sound:
    """Noise of K tracks."""
    chance = torch.Generator().manual_seed(seed)
    return Sound(0.1 * torch.randn(tracks, round(seconds * rate), generator=chance), rate)


def test_the_spectrogram_is_that_of_the_extractor() -> None:
    transformers = pytest.importorskip("transformers", reason="a second witness that comes with ComfyUI")
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    torch.testing.assert_close(mel.mel_filters(), torch.from_numpy(extractor.mel_filters.T), atol=1e-10, rtol=1e-7)
    samples = noise(1.7).samples[0]
    expected = extractor(samples.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(mel.segment_mels(samples), expected, atol=1e-5, rtol=0)


def test_all_states_are_those_of_transformers(encoder: WhisperEncoder) -> None:
    transformers = pytest.importorskip("transformers", reason="a second witness that comes with ComfyUI")
    config = transformers.WhisperConfig(
        d_model=WIDTH, encoder_layers=4, encoder_attention_heads=1, encoder_ffn_dim=4 * WIDTH, num_mel_bins=80
    )
    other = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
    other.load_state_dict(encoder.network.state_dict(), strict=True)
    spectrogram = mel.segment_mels(noise(0.5).samples[0])
    with torch.no_grad():
        expected = torch.stack(other(spectrogram, output_hidden_states=True).hidden_states, dim=2)
    torch.testing.assert_close(encoder.states(spectrogram).normed(), expected, atol=2e-5, rtol=1e-5)


def test_the_two_spectrograms_differ_as_the_programs_do() -> None:
    samples = noise(31.0).samples[0]
    pieces, whole = mel.segment_mels(samples), mel.whole_mel(samples)
    assert pieces.shape == (2, 80, 3000) and whole.shape == (80, 3100)
    torch.testing.assert_close(pieces[0, :, :2990], whole[:, :2990])
    # Behind the end one program has silence, at the level of the floor; the other stops.
    assert float(pieces[1, :, 200:].max() - pieces[1, :, 200:].min()) == 0


def test_both_layouts_give_one_encoder(encoder: WhisperEncoder, folder: Path) -> None:
    shapes, names = whisper(WIDTH), whisper_openai(WIDTH)
    tensors = dict(zip(names, filled_all(shapes, torch.float32).values(), strict=True))
    assert [tuple(one.shape) for one in tensors.values()] == list(names.values())
    path = folder / "a tiny.pt"
    decoder = {"decoder.token_embedding.weight": torch.zeros(9, WIDTH)}
    torch.save({"dims": {"n_mels": 80, "n_audio_state": WIDTH}, "model_state_dict": tensors | decoder}, path)
    match = registry.recognise(read_header(path), "encoder")
    assert (match.family.id, match.variant) == ("whisper", "openai")
    other = registry.load(path, kind="encoder")
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
def test_prefixes_and_decoders_do_not_matter(prefix: str, folder: Path) -> None:
    tensors = filled_all(whisper(WIDTH), torch.float16)
    renamed = {name.replace("model.encoder.", prefix): tensor for name, tensor in tensors.items()}
    if prefix:
        renamed[prefix.replace("encoder.", "decoder.") + "layer_norm.weight"] = torch.zeros(WIDTH)
    path = folder / f"any {prefix}safetensors"
    save_file(renamed, path)
    built = registry.load(path, kind="encoder")
    assert built.id == "whisper_64x4" and built.network.conv1.weight.dtype == torch.float32


def test_the_full_size_is_whisper_tiny() -> None:
    network = WhisperEncoderNetwork(384, 4, 1536)
    names = {name.removeprefix("model.encoder."): shape for name, shape in whisper().items()}
    assert {name: tuple(one.shape) for name, one in network.state_dict().items()} == names


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("model.encoder.conv1.weight", (WIDTH, 128, 3), "128"),
        ("model.encoder.conv1.weight", (96, 80, 3), "96"),
        ("model.encoder.embed_positions.weight", (1000, WIDTH), "no positions of shape"),
    ],
)
def test_other_sizes_are_refused_with_a_reason(name: str, shape: tuple[int, ...], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(filled_all(whisper(WIDTH) | {name: shape}, torch.float16), path)
    answer = FAMILY.recognise(read_header(path))
    assert isinstance(answer, str) and reason in answer


def test_a_missing_tensor_is_named(encoder: WhisperEncoder, folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / f"standin-whisper-tiny-w{WIDTH}.safetensors")
    del tensors["model.encoder.layers.2.fc2.bias"]
    save_file(tensors, tmp_path / "cut.safetensors")
    with pytest.raises(KeyMismatch, match=r"1 missing: layers\.2"):
        registry.load(tmp_path / "cut.safetensors", kind="encoder")


def test_a_voice_is_no_face(encoder: WhisperEncoder) -> None:
    with pytest.raises(EncoderMismatch, match="hears speech"):
        encoder.encode_faces(torch.zeros(1, 8, 8, 3), [0], torch.zeros(1, 4), torch.zeros(1, 5, 2), None)


def steps(count: int) -> Tensor:
    """(T, 5, 2) states that say which step they are, counted from 1; padding is 0."""
    return torch.arange(1, count + 1, dtype=torch.float32)[:, None, None].expand(-1, 5, 2)


def test_windows_of_the_avatar() -> None:
    found = windows_hunyuan_avatar.windows(steps(1500), 400, 25.0)[..., 0, 0]
    assert found[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert found[10].tolist() == [17, 18, 19, 20, 21, 22, 23, 24, 25, 26]
    assert windows_hunyuan_avatar.windows(steps(1500), 20, 12.5)[10, :, 0, 0].tolist() == list(range(37, 47))
    assert windows_hunyuan_avatar.windows(steps(4), 4, 25.0)[3, :, 0, 0].tolist() == [3, 4, *[0] * 8]
    assert windows_hunyuan_avatar.frame_count(640 * 7 + 639, 25.0) == 7
    assert windows_hunyuan_avatar.frame_count(640 * 7, 12.5) == 3


@pytest.mark.parametrize("fps", [12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0])
def test_musetalk_v15_stays_in_step_at_any_rate(fps: float) -> None:
    samples = 16_000 * 20
    found = v15.windows(steps(1500), samples, fps)[..., 0, 0]
    assert len(found) == v15.frame_count(samples, fps) == int(20 * fps)
    left = 2 * int(np.ceil(50 / fps))
    # The step at the frame's own time stands behind the zeros put in front, whatever the rate.
    for number in (len(found) // 3, len(found) - 1):
        wanted = int(number * 50 / fps)
        expected = [one if 1 <= one <= 1000 else 0 for one in range(wanted - left + 1, wanted - left + 11)]
        assert found[number].tolist() == expected


def test_the_official_rate_drifts_and_ours_does_not() -> None:
    samples = 16_000 * 29
    official = v15.windows(steps(1500), samples, 29.97, official_rate=True)[..., 0, 0]
    ours = v15.windows(steps(1500), samples, 29.97)[..., 0, 0]
    assert (len(official), len(ours)) == (29 * 29, int(29 * 29.97))
    number = 29 * 29 - 1
    late = (official[number, 0] - ours[number, 0]) / 50
    assert 0.9 < float(late) < 1.0
    whole = (v15.windows(steps(1500), samples, 30.0, official) for official in (True, False))
    assert torch.equal(*whole)


def test_musetalk_v1_repeats_the_edges_and_cuts_the_extra_windows() -> None:
    official = windows_musetalk_v1.windows(steps(50), None, 25.0)[..., 0, 0]
    assert len(official) == 27
    ours = windows_musetalk_v1.windows(steps(50), 25, 25.0)[..., 0, 0]
    assert torch.equal(official[:25], ours)
    assert ours[0].tolist() == [1, 1, 1, 1, 1, 2, 3, 4, 5, 6]
    assert ours[24].tolist() == [45, 46, 47, 48, 49, 50, 50, 50, 50, 50]


def test_places_of_musetalks_tokens() -> None:
    found = positions(50, 8)
    assert found.shape == (50, 8) and found[0].tolist() == [0, 1] * 4
    torch.testing.assert_close(found[7, 0], torch.sin(torch.tensor(7.0)))
    torch.testing.assert_close(with_positions(torch.zeros(3, 50, 8))[2], found)


@pytest.mark.parametrize("system", ["hunyuan_avatar", "musetalk_v1", "musetalk_v15"])
def test_features_of_two_tracks(system: Any, encoder: WhisperEncoder) -> None:
    told: list[tuple[int, int]] = []
    sound = noise(1.0, tracks=2)
    found = audio_features(encoder, sound, FeatureOptions(system), lambda done, total: told.append((done, total)))
    assert found.features.shape == (2, 25, 10, 5, WIDTH) and (found.tracks, found.frames, found.width) == (2, 25, WIDTH)
    assert told == [(1, 2), (2, 2)] and found.sources == sound.hashes() and len(found.offsets) == 2
    assert bool(torch.isfinite(found.features).all())
    alone = audio_features(encoder, Sound(sound.samples[1:], 16_000), FeatureOptions(system))
    second = found.track(1)
    assert second.digest == alone.digest and second.sources == alone.sources != found.track(0).sources
    assert second.rows().shape == (25, 50, WIDTH)
    assert torch.equal(second.rows()[3, 7], second.features[0, 3, 1, 2])


def test_the_fifth_state_is_normed_for_two_systems_only(encoder: WhisperEncoder) -> None:
    sound = noise(1.0)
    found = {
        system: audio_features(encoder, sound, FeatureOptions(system)).features[0, 12, 4:]  # type: ignore[arg-type]
        for system in ("hunyuan_avatar", "musetalk_v1")
    }
    # The same steps around frame 12; the spectrograms differ at the end of the sound only, and by rounding.
    norm = encoder.network.layer_norm
    normed = norm(found["musetalk_v1"][:, 4])
    torch.testing.assert_close(found["hunyuan_avatar"][:, 4].std(), normed.std(), atol=0.05, rtol=0)
    assert abs(float(found["musetalk_v1"][:, 4].std() - normed.std())) > 0.2


def test_silence_in_front_moves_the_features(encoder: WhisperEncoder) -> None:
    sound = noise(1.0)
    late = audio_features(encoder, sound, FeatureOptions("hunyuan_avatar", start=2.0))
    padded = Sound(torch.nn.functional.pad(sound.samples, (32_000, 0)), 16_000)
    there = audio_features(encoder, padded, FeatureOptions("hunyuan_avatar"))
    assert late.frames == 75 and late.digest == there.digest and late.offsets == (2.0,)


def test_long_sound_goes_on_and_the_official_limit_is_the_default(encoder: WhisperEncoder) -> None:
    sound = noise(33.0)
    short = audio_features(encoder, sound, FeatureOptions("hunyuan_avatar"))
    whole = audio_features(encoder, sound, FeatureOptions("hunyuan_avatar", most_frames=10_000))
    assert short.frames == 400 and "cut after 400 of 825" in features_report(short)
    assert whole.frames == 825 and "lower quality" in features_report(whole)
    assert torch.equal(whole.features[:, :400], short.features)
    assert float(whole.features[0, 800].abs().max()) > 0.1
    for system in ("musetalk_v1", "musetalk_v15"):
        assert audio_features(encoder, sound, FeatureOptions(system, 10.0)).frames == 330  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [12.5, 25.0])
def test_the_avatar_counts_its_frames_at_both_rates(fps: float, encoder: WhisperEncoder) -> None:
    assert audio_features(encoder, noise(2.0), FeatureOptions("hunyuan_avatar", fps)).frames == int(2 * fps)


@pytest.mark.parametrize(
    ("system", "fps", "words"),
    [
        ("hunyuan_avatar", 30.0, "expected 25 fps or 12.5 fps, found 30 fps"),
        ("musetalk_v15", 0.0, "expected 1 to 240 fps"),
        ("musetalk_v1", float("nan"), "expected 1 to 240 fps"),
        ("sonic", 25.0, "expected hunyuan_avatar, musetalk_v1, musetalk_v15"),
    ],
)
def test_rates_and_systems_nobody_knows(system: Any, fps: float, words: str, encoder: WhisperEncoder) -> None:
    with pytest.raises(BadSound, match=words):
        audio_features(encoder, noise(1.0), FeatureOptions(system, fps))


@pytest.mark.parametrize("samples", [1, 200, 399, 639])
@pytest.mark.parametrize("system", ["hunyuan_avatar", "musetalk_v1", "musetalk_v15"])
def test_sound_of_no_frame_is_refused(samples: int, system: Any, encoder: WhisperEncoder) -> None:
    sound = as_sound({"waveform": torch.zeros(1, 8, samples), "sample_rate": 16_000})
    with pytest.raises(BadSound, match=r"at least one video frame \(0.04 s\)"):
        audio_features(encoder, sound, FeatureOptions(system))


@pytest.mark.parametrize("system", ["hunyuan_avatar", "musetalk_v1", "musetalk_v15"])
def test_the_shortest_sound_silence_and_odd_rates_run(system: Any, encoder: WhisperEncoder) -> None:
    sound = as_sound({"waveform": torch.zeros(1, 8, 640 * 12), "sample_rate": 192_000})
    found = audio_features(encoder, sound, FeatureOptions(system))
    assert found.frames == 1 and bool(torch.isfinite(found.features).all())
    assert "resampled from 192000 to 16000 Hz" in features_report(found)


def test_a_larger_whisper_is_refused(folder: Path) -> None:
    path = folder / "five.safetensors"
    save_file(filled_all(whisper(WIDTH, 5), torch.float32), path)
    with pytest.raises(EncoderMismatch, match="whisper-tiny, which has 5 states"):
        audio_features(registry.load(path, kind="encoder"), noise(1.0), FeatureOptions("musetalk_v1"))


def test_features_of_another_system_are_refused(encoder: WhisperEncoder) -> None:
    found: AudioFeatures = audio_features(encoder, noise(0.2), FeatureOptions("musetalk_v1"))
    require_system(found, "musetalk_v1", "musetalk_v15", what="MuseTalk")
    with pytest.raises(EncoderMismatch, match=r"features for MuseTalk v1 and UnAvgLip; set system to hunyuan_avatar"):
        require_system(found, "hunyuan_avatar", what="Avatar")


def test_cancel_passes_through(encoder: WhisperEncoder) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audio_features(encoder, noise(0.2), FeatureOptions("musetalk_v15"), cancel)


def test_states_of_the_programs_have_the_length_of_the_sound(encoder: WhisperEncoder) -> None:
    samples = noise(30.5).samples[0]
    assert whisper_features.musetalk_v1_states(encoder, samples).shape == (1525, 5, WIDTH)
    assert whisper_features.musetalk_v15_states(encoder, samples).shape == (3000, 5, WIDTH)
    assert v15.heard_steps(len(samples)) == 1525
