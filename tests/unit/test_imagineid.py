"""Voice factors: they are found on speech that was held out, traces of other labels are told, runs stop and go on."""

from __future__ import annotations

import csv
import importlib
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from espeak_speech import espeak, espeak_clips
from formant_speech import MANNERS, VOICES, WORDS, formant_clips
from likeness_pack.adapters import registry
from likeness_pack.adapters.audio_features import require_system
from likeness_pack.adapters.audio_sound import BadSound, Sound
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch
from likeness_pack.adapters.families.imagineid.arch import FACTORS, FactorSizes, VoiceFactors, cepstra
from likeness_pack.adapters.families.imagineid.encoder import FactorEncoder, frame_factor, voice_identity
from likeness_pack.adapters.families.imagineid.family import FAMILY
from likeness_pack.adapters.identity import EMBEDDING
from likeness_pack.training.checkpointing import write_tensors
from likeness_pack.training.imagineid import (
    BadFactorOptions,
    FactorOptions,
    facts_of,
    left_over,
    save_factors,
    state_path,
    train_factors,
)
from likeness_pack.training.imagineid_clips import LABELS, BadClips, VoiceClip, VoiceClips, prepared, split
from likeness_pack.training.imagineid_probe import FactorProbe, clip_vectors, probe
from likeness_pack.training.loop import LoopOptions
from module_folders import ModuleFolders
from pack import ROOT

SMALL = FactorOptions(batch=24, frames=48, width=64, layers=1, identity=32, content=32, emotion=32)
LOOP = LoopOptions(60, 2e-3, save_every=7)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def speech() -> list[VoiceClip]:
    """Synthetic words of four voices in three manners, by formants."""
    return formant_clips(takes=2)


@pytest.fixture(scope="module")
def clips(speech: list[VoiceClip]) -> VoiceClips:
    return prepared(speech)


def measured(clips: VoiceClips, seed: int) -> FactorProbe:
    """Train with one seed and try combinations that were held out with it."""
    learnt, held = (clips.taken(rows) for rows in split(clips, 0.33, seed))
    network = train_factors(learnt, None, replace(SMALL, seed=seed), LOOP)
    assert network is not None
    return probe(network, learnt, held)


@pytest.fixture(scope="module")
def probes(clips: VoiceClips) -> list[FactorProbe]:
    return [measured(clips, seed) for seed in SEEDS]


def check_above_chance(probes: Sequence[FactorProbe]) -> None:
    """Each seed and factor is clearly above chance, and the mean by half of the way to perfect."""
    for found in probes:
        for factor in FACTORS:
            assert found.own[factor] > found.chance[factor] + 0.1, found.line()
    for factor in FACTORS:
        own, chance = fmean(found.own[factor] for found in probes), fmean(found.chance[factor] for found in probes)
        assert own > chance + (1 - chance) / 2


def check_leakage_is_told(found: FactorProbe) -> None:
    """All six traces are in the line, with their size."""
    assert len(found.leakage) == len(found.spread) == 6
    assert all(0 <= part <= 1 for part in (*found.leakage.values(), *found.spread.values()))
    line = found.line()
    assert "leakage above chance" in line and line.count("of its spread") == 6
    for (factor, other), part in found.leakage.items():
        assert f"{LABELS[other]} from {factor} {part:.0%} (of its spread {found.spread[factor, other]:.0%})" in line


def test_factors_of_formant_speech_are_found_in_held_out_combinations(probes: list[FactorProbe]) -> None:
    check_above_chance(probes)
    for found in probes:
        check_leakage_is_told(found)


def test_factors_of_espeak_speech_are_found_in_held_out_combinations(tmp_path: Path) -> None:
    program = espeak()
    if program is None:
        pytest.skip("espeak-ng, a Debian package, is not installed; the same is tested on formants")
    clips = prepared(espeak_clips(program, tmp_path))
    found = [measured(clips, seed) for seed in SEEDS]
    check_above_chance(found)
    for one in found:
        check_leakage_is_told(one)


def test_the_term_against_other_labels_works() -> None:
    own, other = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    clean = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]])
    mixed = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0, 1.5], [0, 0.5]])
    assert float(left_over(clean, own, other)) == 0
    assert float(left_over(mixed, own, other)) == pytest.approx(1.0)


def test_held_out_combinations_are_in_no_training_clip(clips: VoiceClips) -> None:
    for seed in SEEDS:
        train, held = split(clips, 0.33, seed)
        assert sorted(train + held) == list(range(len(clips))) and 0.25 < len(held) / len(clips) < 0.4
        rows = list(zip(*(clips.labels[factor] for factor in FACTORS), strict=True))
        assert not {rows[number] for number in train} & {rows[number] for number in held}
        assert all(set(clips.taken(train).classes[factor]) == set(clips.classes[factor]) for factor in FACTORS)
    assert split(clips, 0.0, 0) == (list(range(len(clips))), [])
    assert split(clips, 0.33, 0) != split(clips, 0.33, 1)


LITTLE = LoopOptions(9, 2e-3, save_every=4)


@pytest.mark.parametrize("stops", [[("identity", 5)], [("content", 3), ("content", 8), ("emotion", 1)]])
def test_stopped_and_resumed_runs_end_with_the_same_weights(stops: Any, clips: VoiceClips, tmp_path: Path) -> None:
    few = clips.taken(range(24))
    whole = train_factors(few, None, SMALL, LITTLE)
    path = tmp_path / "mine.safetensors"
    for stop in stops:
        assert train_factors(few, path, SMALL, LITTLE, stop_after=stop) is None
    rest = train_factors(few, path, SMALL, LITTLE)
    assert whole is not None and rest is not None
    for name, tensor in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], tensor), name
    with pytest.raises(BadCheckpoint, match="batch 24"):
        train_factors(few, path, replace(SMALL, batch=20), LITTLE)
    assert all(state_path(path, factor).suffix == ".training_state" for factor in FACTORS)


def test_a_stage_leaves_earlier_ones_alone(clips: VoiceClips) -> None:
    few, seen, staged = clips.taken(range(24)), {}, replace(SMALL, purity=0.0)

    def keep(factor: str, step: int, losses: Any) -> None:
        seen[factor, step] = losses

    network = train_factors(few, None, staged, LITTLE, on_step=keep)
    assert list(seen) == [(factor, step) for factor in FACTORS for step in range(1, 10)]
    assert {"total", "labels", "others", "right"} <= set(seen["identity", 1])
    assert network is not None and not any(one.requires_grad for one in network.parameters())
    # Other emotions change the emotion module alone; with purity 0 earlier stages do not even look at them.
    other = train_factors(VoiceClips(few.mels, few.labels | {"emotion": tuple("ab" * 12)}), None, staged, LITTLE)
    assert other is not None
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor) is not name.startswith("emotion."), name


@pytest.fixture(scope="module")
def written(clips: VoiceClips, module_folders: ModuleFolders) -> Path:
    """A file of a short run."""
    path = module_folders.mktemp("factors") / "声音 factors.safetensors"
    network = train_factors(clips, None, SMALL, LITTLE)
    assert network is not None
    save_factors(path, network, facts_of(clips, LITTLE, "a line"))
    return path


@pytest.fixture(scope="module")
def encoder(written: Path) -> FactorEncoder:
    return registry.load(written, kind="encoder")


def test_a_file_comes_back_through_the_loader(written: Path, encoder: FactorEncoder, clips: VoiceClips) -> None:
    network = train_factors(clips, None, SMALL, LITTLE)
    assert network is not None
    for name, tensor in network.state_dict().items():
        assert torch.equal(encoder.network.state_dict()[name], tensor), name
    report = registry.describe(written)
    assert report.family == "imagineid" and report.commercial is None
    told = " ".join(report.notes)
    assert "own construction" in told and "72 clips of 4 voices, 3 emotions and 3 contents" in told and "a line" in told
    assert "9, 9 and 9 steps" in " ".join(encoder.notes)


def test_factors_of_sound(encoder: FactorEncoder, speech: list[VoiceClip]) -> None:
    told: list[tuple[int, int]] = []
    both = Sound(torch.cat([speech[0].sound.samples[:, :8000], speech[-1].sound.samples[:, :8000]]), 16_000)
    found = encoder.factors(both, on_track=lambda done, total: told.append((done, total)))
    assert found.identity.shape == (2, 32) and found.content.shape == found.emotion.shape == (2, 12, 32)
    assert told == [(1, 2), (2, 2)]
    torch.testing.assert_close(found.identity.norm(dim=1), torch.ones(2))
    alone = encoder.factors(Sound(both.samples[1:], 16_000))
    assert torch.equal(alone.emotion[0], found.emotion[1])
    identity = voice_identity(encoder, found)
    assert len(identity) == 2 and torch.equal(identity.features[EMBEDDING], found.identity)
    emotion = frame_factor(encoder, found, "imagineid_emotion")
    assert emotion.features.shape == (2, 12, 1, 1, 32) and emotion.fps == 25.0 and emotion.sources == both.hashes()
    with pytest.raises(EncoderMismatch, match="features for ImagineID's emotion"):
        require_system(emotion, "hunyuan_avatar", what="Avatar")


def test_clips_and_sound_are_heard_alike(encoder: FactorEncoder, speech: list[VoiceClip], clips: VoiceClips) -> None:
    rows = clip_vectors(encoder.network, clips.taken([3]))
    found = encoder.factors(speech[3].sound)
    torch.testing.assert_close(found.identity, rows["identity"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.content.mean(dim=1), rows["content"], atol=1e-5, rtol=1e-5)


def test_long_sound_is_heard_in_pieces(encoder: FactorEncoder, speech: list[VoiceClip]) -> None:
    samples = torch.cat([clip.sound.samples for clip in speech], dim=1)
    long = Sound(samples[:, : 33 * 16_000], 16_000)
    found = encoder.factors(long)
    assert found.content.shape == (1, 825, 32) and bool(torch.isfinite(found.emotion).all())
    torch.testing.assert_close(found.identity.norm(dim=1), torch.ones(1))
    late = encoder.factors(Sound(samples[:, :16_000], 16_000), start=1.0)
    assert late.content.shape == (1, 50, 32)


def test_cepstra_are_an_orthonormal_transform_without_loudness() -> None:
    mel = torch.randn(2, 80, 8)
    found = cepstra(mel)
    assert found.shape == (2, 40, 8)
    torch.testing.assert_close(cepstra(mel + 3.0), found, atol=1e-4, rtol=0)
    basis = cepstra(torch.eye(80)[None])[0]
    torch.testing.assert_close(basis @ basis.T, torch.eye(40), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (Sound(torch.zeros(1, 16_000), 16_000), "silence in track 0"),
        (Sound(torch.randn(1, 639), 16_000), r"at least 0\.04 s of speech"),
        (Sound(torch.randn(1, 1), 192_000), r"at least 0\.04 s of speech"),
    ],
)
def test_sound_without_speech_is_refused(sound: Sound, words: str, encoder: FactorEncoder) -> None:
    with pytest.raises(BadSound, match=words):
        encoder.factors(sound)


def test_a_voice_is_no_face(encoder: FactorEncoder) -> None:
    with pytest.raises(EncoderMismatch, match="which hears speech"):
        encoder.encode_faces(torch.zeros(1, 8, 8, 3), [0], torch.zeros(1, 4), torch.zeros(1, 5, 2), None)


def changed(clip: VoiceClip, samples: torch.Tensor) -> VoiceClip:
    return replace(clip, sound=Sound(samples, clip.sound.rate))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (torch.full((1, 16_000), float("nan")), "finite samples"),
        (torch.zeros(1, 0), "sound of one track"),
        (torch.zeros(2, 16_000), "sound of one track"),
        (torch.zeros(1, 16_000), "found silence"),
        (torch.ones(1, 100), r"0\.16 to 30 s, found 0\.00625 s"),
        (torch.ones(1, 31 * 16_000), r"0\.16 to 30 s, found 31 s"),
    ],
)
def test_clips_nothing_can_be_learnt_from_are_named(samples: Any, words: str, speech: list[VoiceClip]) -> None:
    with pytest.raises(BadSound, match=words) as caught:
        prepared([*speech[:-1], changed(speech[-1], samples)])
    assert str(caught.value).startswith(f"clip {speech[-1].name}")


@pytest.mark.parametrize("label", ["voice", "emotion", "content"])
def test_labels_nothing_can_be_learnt_from_are_named(label: str, speech: list[VoiceClip]) -> None:
    with pytest.raises(BadClips, match=f"column {label} of 72 clips.*'odd': 1"):
        prepared([*speech[:-1], replace(speech[-1], **{label: "odd"})])
    with pytest.raises(BadClips, match=f"column {label}"):
        prepared([replace(clip, **{label: "same"}) for clip in speech])
    with pytest.raises(BadClips, match=f"column {label}"):
        prepared([replace(clip, **{label: ""}) if number % 2 else clip for number, clip in enumerate(speech)])
    with pytest.raises(BadClips):
        prepared([])


@pytest.mark.parametrize("option", [{"width": 96}, {"batch": 1}, {"frames": 30}, {"layers": 0}, {"purity": -1.0}])
def test_sizes_that_fit_nothing_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(BadFactorOptions, match="keep the defaults"):
        replace(SMALL, **option)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "none for format"),
        ({"format": "imagineid_factors_v9"}, "found imagineid_factors_v9"),
        ({"clips": "many"}, "clips many"),
        ({"steps_emotion": "0"}, "emotion was never trained"),
    ],
)
def test_files_that_do_not_say_what_they_are_are_refused(metadata: Any, words: str, tmp_path: Path) -> None:
    facts = {name: "3" for name in ("clips", "voices", "emotions", "contents")}
    facts |= {f"steps_{factor}": "5" for factor in FACTORS} | {"format": "imagineid_factors_v1"}
    path = tmp_path / "odd.safetensors"
    write_tensors(path, VoiceFactors(SMALL.sizes).state_dict(), {**facts, **metadata} if metadata else {})
    with pytest.raises(BadCheckpoint, match=words):
        registry.load(path, kind="encoder")


def test_cut_and_foreign_files_are_refused(tmp_path: Path) -> None:
    tensors = VoiceFactors(FactorSizes(64, 1, 8, 8, 8)).state_dict()
    facts = facts_of(VoiceClips((), {factor: () for factor in FACTORS}), LITTLE).metadata()
    path = tmp_path / "cut.safetensors"
    write_tensors(path, {name: one for name, one in tensors.items() if name != "content.norm.bias"}, facts)
    with pytest.raises(KeyMismatch, match="1 missing: content"):
        registry.load(path, kind="encoder")
    write_tensors(path, tensors | {"content.conv1.weight": torch.zeros(64, 79, 5)}, facts)
    answer = FAMILY.recognise(read_header(path))
    assert isinstance(answer, str) and "(64, 79, 5)" in answer


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("train_imagineid")


def write_list(folder: Path, speech: Sequence[VoiceClip], columns: Sequence[str]) -> Path:
    """Files of sound and their list."""
    rows = []
    for number, clip in enumerate(speech):
        name = f"{number}.wav"
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, clip.sound.rate, 0, "NONE", "NONE"))
            file.writeframes((clip.sound.samples[0] * 32_000).to(torch.int16).numpy().tobytes())
        rows.append(dict(zip(columns, (name, clip.voice, clip.emotion, clip.content), strict=True)))
    path = folder / "list.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_command_trains_a_file_and_tells_leakage(
    command: Any, speech: list[VoiceClip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [clip for clip in speech if clip.voice in list(VOICES)[:2] and clip.content in WORDS[:2]]
    assert len(chosen) == 8 * len(MANNERS)
    listed = write_list(tmp_path, chosen, command.COLUMNS)
    output = tmp_path / "mine.safetensors"
    options = ["--width", "64", "--layers", "1", "--steps", "6", "--batch", "8", "--device", "cpu"]
    assert command.main(["--clips", str(listed), "--output", str(output), *options]) == 0
    said = capsys.readouterr().out
    assert "24 clips, 2 voices, 2 contents, 3 emotions" in said and "leakage above chance" in said
    assert "leakage above chance" in registry.load(output, kind="encoder").facts.probe


def test_the_command_refuses_by_one_sentence(
    command: Any, speech: list[VoiceClip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "mine.safetensors")]
    assert command.main(["--clips", str(tmp_path / "none.csv"), *output]) == 1
    assert "a readable list" in capsys.readouterr().err
    listed = write_list(tmp_path, speech[:2], ("file", "voice", "mood", "content"))
    assert command.main(["--clips", str(listed), *output]) == 1
    assert "none called emotion" in capsys.readouterr().err
    listed = write_list(tmp_path, speech[:2], command.COLUMNS)
    (tmp_path / "1.wav").unlink()
    assert command.main(["--clips", str(listed), *output]) == 1
    said = capsys.readouterr().err
    assert "no file '1.wav'" in said and said.count("\n") == 1
