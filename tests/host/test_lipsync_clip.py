"""Lip-sync from file to file: every frame rate, the sound, a chosen person; and the shipped workflow."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_files import frame_times, packets, write_raw_clip
from clip_people import GREEN, RED, ColourDetector, frame_of
from graph_runner import StandIn, run_graph
from host_inprocess import engine
from likeness_pack.adapters.audio_sound import BadSound, Sound
from likeness_pack.adapters.encoders.whisper.windows_musetalk_v15 import LEFT, STEPS_A_SECOND
from likeness_pack.adapters.families.musetalk import voice as voices
from likeness_pack.adapters.families.musetalk.voice import Voice
from likeness_pack.faces.errors import FaceChoice, NoFaceFound
from likeness_pack.inject import lip_clip, model_folders
from likeness_pack.inject.host import folder_paths, model_management
from likeness_pack.inject.lip_sync import LipSync, LipSyncOptions, sync_report
from likeness_pack.inject.loaded_parser import LoadedParser
from likeness_pack.media.audio import Waveform
from likeness_pack.media.revoice import RevoicedClip
from likeness_pack.media.transform import ClipJob
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from musetalk_models import SmallVae, model_of, seeded, write_musetalk
from small_vae import small_vae
from tiny_parser import tiny_parser
from torch import Tensor
from workflow_files import api_workflow

RATES = [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50), Fraction(60)]


@pytest.fixture(scope="module")
def model(module_folders: ModuleFolders) -> Any:
    engine()
    path = module_folders.mktemp("lips 唇") / "unet.pth.safetensors"
    write_musetalk(path)
    return model_of(path, "v15")


@pytest.fixture(scope="module")
def vae() -> SmallVae:
    return SmallVae()


@pytest.fixture(scope="module")
def taesd() -> Any:
    return small_vae()


def written_clip(path: Path, rate: Fraction, frames: int, people_at: Any = None) -> Path:
    """A clip at a rate, its frames a person who walks."""
    base = Fraction(1, rate.numerator) if rate.denominator > 1 else Fraction(1, 90000)
    step = round(1 / (rate * base))
    at = people_at or (lambda n: {RED: (80.0 + 20 * math.sin(n / 9), 52.0, 1.0)})
    pictures = torch.stack([frame_of(at(n)) for n in range(frames)])
    return write_raw_clip(path, pictures, [n * step for n in range(frames)], time_base=base, sound=16000)


def clocked(version: str, rate: Fraction, frames: int) -> Voice:
    """A voice whose every number is the time it stands for, in seconds."""
    steps = torch.arange(4 + math.ceil(frames * STEPS_A_SECOND / rate)).float() / STEPS_A_SECOND
    states = steps[:, None, None].expand(-1, 5, 384)
    windows = voices._v1 if version == "v1" else voices._v15
    return Voice(frames / rate, rate, lambda moments: windows(states, moments, rate))


def nobody(done: int, total: int) -> None:
    """Watches no progress."""


class Listener(LipSync):
    """Notes what each painted frame hears; paints nothing."""

    heard: list[Tensor]

    def painted(self, crops: Tensor, tokens: Tensor) -> Tensor:
        self.heard += list(tokens)
        return crops


def shifted(tokens: Tensor, rate: float) -> float:
    """The time for which a window of v1.5 was made: its first step and the ones before it, which v1.5 fixes."""
    rows = tokens[:: tokens.shape[0] // 10, 0]
    place = LEFT * math.ceil(STEPS_A_SECOND / rate)
    return float(rows[place]) if place < 10 else float(rows[9]) + (place - 9) / STEPS_A_SECOND


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: f"{float(rate):.5g}")
def test_every_frame_of_a_file_hears_its_own_time(model: Any, vae: Any, tmp_path: Path, rate: Fraction) -> None:
    """The official program drifts at 29.97 fps and ends at 60; here no frame is off, the last one included."""
    count = round(rate / 2) + 3
    source = written_clip(tmp_path / "in.mp4", rate, count)
    job = Listener(model, vae, LipSyncOptions("box"))
    job.heard = []
    voice = clocked("v15", rate, count)
    sound = Waveform(torch.zeros(1, 1, 16000 * 4), 16000)
    clip = RevoicedClip(ClipJob(source, tmp_path / "out.mp4", 16), sound)
    assert clip.rate == rate
    done, told = lip_clip.sync_clip(job, clip, ColourDetector(), voice, lip_clip.ClipSyncOptions(), nobody)
    times = frame_times(tmp_path / "out.mp4")
    assert done.frames == count == len(times) == told.painted == len(job.heard)
    # Sound comes in steps of 20 ms, which is more than half a frame above 25 fps.
    bound = max(0.5 / float(rate), 1 / STEPS_A_SECOND) + 1e-4
    off = [abs(shifted(tokens, float(rate)) - float(time)) for tokens, time in zip(job.heard, times, strict=True)]
    assert max(off[4:]) <= bound and off[-1] <= bound
    seconds = sum(part[2] for part in packets(tmp_path / "out.mp4", "audio"))
    assert abs(float(seconds) - count / float(rate)) < 0.1


def test_a_whole_clip_with_its_sound(model: Any, vae: Any, tmp_path: Path) -> None:
    source = written_clip(tmp_path / "in.mp4", RATES[1], 6, lambda n: {} if n == 1 else {RED: (60.0 + n, 52.0, 1.0)})
    told: list[tuple[int, int]] = []
    voice = Voice(Fraction(1, 5), Fraction(25), lambda moments: seeded(len(moments), 50, 384))
    sound = Waveform(torch.rand(1, 2, 44100) - 0.5, 44100)
    options = lip_clip.ClipSyncOptions(follow=lip_clip.FollowOptions(fill=False))
    done, count = lip_clip.sync_clip(
        LipSync(model, vae, LipSyncOptions(batch=2)),
        RevoicedClip(ClipJob(source, tmp_path / "out.mkv", 4), sound),
        ColourDetector(),
        voice,
        options,
        lambda done, total: told.append((done, total)),
    )
    assert (done.frames, count.painted, count.without_face, count.silent) == (6, 4, [1], 1)
    assert told[-1] == (12, 12) and [one[0] for one in told] == sorted(one[0] for one in told)
    assert any("left out: audio of the clip" in note for note in done.notes)
    assert "left out: 0.76 s of the sound, behind the last frame" in done.notes
    assert abs(float(sum(part[2] for part in packets(tmp_path / "out.mkv", "audio"))) - 0.24) < 0.05


def test_a_face_whose_place_was_filled_in_is_told(model: Any, vae: Any, tmp_path: Path) -> None:
    source = written_clip(tmp_path / "in.mp4", RATES[1], 4, lambda n: {} if n == 1 else {RED: (60.0 + n, 52.0, 1.0)})
    job = Listener(model, vae, LipSyncOptions("box"))
    job.heard = []
    voice = Voice(Fraction(1, 5), Fraction(25), lambda moments: seeded(len(moments), 50, 384))
    clip = RevoicedClip(ClipJob(source, tmp_path / "out.mp4", 4), Waveform(torch.zeros(1, 1, 2560), 16000))
    count = lip_clip.sync_clip(job, clip, ColourDetector(), voice, lip_clip.ClipSyncOptions(), nobody)[1]
    assert (count.painted, count.filled, count.without_face) == (4, 1, [])
    assert "1 frames without a face found, its place taken from those around" in sync_report(
        job, count, 4, voice, "box"
    )


def test_a_clip_as_long_as_its_sound_goes_backwards(model: Any, vae: Any, tmp_path: Path) -> None:
    source = written_clip(tmp_path / "in.mp4", RATES[0], 5, lambda n: {RED: (60.0 + n, 52.0, 1.0)})
    job = Listener(model, vae, LipSyncOptions("box"))
    job.heard = []
    boxes: list[Any] = []
    plain = job.boxes
    job.boxes = lambda faces: boxes.extend(plain(faces)) or plain(faces)  # type: ignore[method-assign]
    clip = RevoicedClip(ClipJob(source, tmp_path / "out.mp4", 2), Waveform(torch.zeros(1, 1, 16000), 16000))
    options = lip_clip.ClipSyncOptions(length="sound")
    done, _ = lip_clip.sync_clip(job, clip, ColourDetector(), clocked("v1", RATES[0], 13), options, nobody)
    assert done.frames == 13 == len(job.heard)
    # The first five are the check before anything is written.
    places = [box[0] - boxes[0][0] for box in boxes[5:]]
    assert places == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1, 2]
    times = frame_times(tmp_path / "out.mp4")
    assert times == [Fraction(n) / RATES[0] for n in range(13)]


def test_a_person_is_chosen_and_errors_leave_no_file(model: Any, vae: Any, tmp_path: Path) -> None:
    pair = lambda n: {RED: (40.0, 52.0, 1.0)} | ({} if n == 2 else {GREEN: (120.0, 52.0, 1.0)})  # noqa: E731
    source = written_clip(tmp_path / "in.mp4", RATES[1], 4, pair)
    job = Listener(model, vae, LipSyncOptions("box"))

    def sync(**changes: Any) -> Any:
        job.heard = []
        clip = RevoicedClip(ClipJob(source, tmp_path / "out.mp4"), Waveform(torch.zeros(1, 1, 16000), 16000))
        options = lip_clip.ClipSyncOptions(follow=lip_clip.FollowOptions(fill=False), **changes)
        return lip_clip.sync_clip(job, clip, ColourDetector(), clocked("v15", Fraction(25), 4), options, nobody)[1]

    assert sync(person=0).painted == 4 and sync(person=1).without_face == [2]
    (tmp_path / "out.mp4").unlink()
    with pytest.raises(FaceChoice, match="expected numbers of 0, 1, found 7"):
        sync(person=7)
    with pytest.raises(NoFaceFound, match="none in 1 of 4 frames .2, counted from 0."):
        sync(person=1, on_missing_face="error")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


# The workflow


@pytest.fixture(scope="module")
def files(module_folders: ModuleFolders) -> Iterator[Path]:
    """Stand-ins, a clip of a real face and a voice, where the workflow looks for them."""
    engine()
    model_folders.register_model_folders()
    root = module_folders.mktemp("workflow")
    write_musetalk(root / "diffusion_models" / "musetalkV15" / "unet.pth")
    (root / "encoders").mkdir()
    write_standin("whisper-tiny", root / "encoders").rename(root / "encoders" / "whisper-tiny.safetensors")
    table = folder_paths().folder_names_and_paths
    kind = "diffusion_models" if "diffusion_models" in set(table.keys()) else "unet"
    added = {kind: str(root / "diffusion_models"), "face_encoders": str(root / "encoders")}
    for name, place in added.items():
        table[name][0].append(place)
    yield root
    for name, place in added.items():
        table[name][0].remove(place)


def speaker(path: Path) -> Path:
    """A clip of the astronaut's face at 29.97 fps."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()[0:256, 96:352].copy())
    frames = torch.stack([photo.roll(n, 1) for n in range(3)])
    return write_raw_clip(path, frames, [n * 1001 for n in range(3)], time_base=Fraction(1, 30000), size=(256, 256))


def spoken(path: Path) -> Path:
    """A tenth of a second of sound."""
    tone = np.sin(np.arange(2400) * 2 * math.pi * 220 / 16000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((tone * 20000).astype("<i2").tobytes())
    return path


def test_the_workflow_runs_from_end_to_end(files: Path, taesd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from likeness_pack.inject import audio, clips

    listed = model_folders.list_files(model_folders.DIFFUSION)
    speaker(files / "speaker.mp4")
    spoken(files / "voice.wav")
    monkeypatch.setattr(audio, "input_folder", lambda: files)
    monkeypatch.setattr(clips, "_inside", lambda name: files / name)
    monkeypatch.setattr(clips, "output_folder", lambda: files / "output")
    graph = api_workflow("lipsync_clip")
    # Older hosts have no folder diffusion_models, and list such files behind the name of theirs.
    graph["1"]["inputs"]["file"] = next(name for name in listed if name.endswith(graph["1"]["inputs"]["file"]))
    stand_ins: dict[str, StandIn] = {
        "VAELoader": lambda given: (taesd,),
        "LikenessLoadParser": lambda given: (LoadedParser(tiny_parser()),),
    }
    _, name, frames, report = run_graph(graph, stand_ins)[graph["7"]["_meta"]["title"]]
    assert frames == 3 and "3 with a new mouth" in report and "29.97" in report and "pasted by jaw" in report
    written = next((files / "output").rglob("*.mp4"))
    assert written.name == Path(name).name
    assert frame_times(written) == [Fraction(1001 * n, 30000) for n in range(3)]
    assert packets(written, "audio")
    model_management().unload_all_models()


def test_a_voice_at_rates_that_no_clip_has() -> None:
    with pytest.raises(BadSound, match="of sound, and 1 to 240 fps, found 0.1 s at 500 fps"):
        voices.voice_of_sound(None, Sound(torch.zeros(1, 1600), 16000), "v15", Fraction(500))  # type: ignore[arg-type]
