"""The speaking workflows from end to end through the node classes: the official layout at small width, drawn faces."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avatar_host import TEXT_WIDTH, VideoVae, thin_clip, thin_clip_vision
from clip_people import GREEN, RED, ColourDetector, frame_of
from graph_runner import Outputs, StandIn, run_graph
from host_inprocess import engine
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from likeness_pack.inject.loaded_networks import LoadedDetector
from likeness_pack.tools.standins import hunyuan_avatar as standin
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from torch import Tensor
from workflow_files import api_workflow

NAMES = ("avatar_one_speaker", "avatar_two_speakers")
EXTRAS = ("custom_sampler", "hunyuan", "model_advanced", "images")
STEPS, LENGTH = 2, 9
SIZES = {"avatar_one_speaker": (96, 96), "avatar_two_speakers": (192, 96)}
FACE = 20.0


@pytest.fixture(scope="module", autouse=True)
def needs_hunyuan() -> None:
    if not engine().has_wrappers:
        pytest.skip("needs a newer host: this ComfyUI has no HunyuanVideo")


@pytest.fixture(scope="module")
def files(module_folders: ModuleFolders) -> Iterator[None]:
    """The checkpoint, the audio encoder and voices where the workflows look for them."""
    pytest.importorskip("av")
    model_folders.register_model_folders()
    folder = module_folders.mktemp("models")
    weights = standin.filled(standin.checkpoint(double=6, single=6, text=TEXT_WIDTH))
    (folder / "diffusion").mkdir()
    torch.save(standin.packed(weights), folder / "diffusion" / "mp_rank_00_model_states.pt")
    write_standin("whisper-tiny", folder / "encoders").rename(folder / "encoders" / "whisper-tiny.safetensors")
    for number, name in enumerate(("voice", "voice_1", "voice_2")):
        write_voice(Path(folder_paths().get_input_directory()) / f"{name}.wav", number)
    table = folder_paths().folder_names_and_paths
    added = {"diffusion_models": str(folder / "diffusion"), "face_encoders": str(folder / "encoders")}
    for name, place in added.items():
        table[name][0].append(place)
    yield
    for name, place in added.items():
        table[name][0].remove(place)


def write_voice(path: Path, number: int) -> None:
    """0.36 seconds of a tone and noise."""
    times = np.arange(5760) / 16000
    noise = np.random.default_rng(number).standard_normal(len(times))
    samples = 8000 * np.sin(2 * np.pi * (120 + 60 * number) * times) + 2000 * noise
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.clip(-32767, 32767).astype("<i2").tobytes())


def photo(name: str) -> Tensor:
    """A picture with the workflow's number of faces."""
    two = name == "t1.jpg"
    width, height = SIZES["avatar_two_speakers" if two else "avatar_one_speaker"]
    places = {RED: (width / 4, height / 2, 1.0), GREEN: (width * 0.75, height / 2, 1.0)}
    shown = places if two else {RED: (width / 2, height / 2, 1.0)}
    return frame_of(shown, height, width).float()[None] / 255


def small(name: str) -> dict[str, Any]:
    """The workflow with a small picture, few frames and few steps."""
    graph = api_workflow(name)
    width, height = SIZES[name]
    for entry in graph.values():
        inputs = entry["inputs"]
        if entry["class_type"] in ("ImageScale", "EmptyHunyuanLatentVideo"):
            inputs |= {"width": width, "height": height}
        changed = {"length": LENGTH, "amount": LENGTH, "steps": STEPS, "switch_step": 1}
        inputs |= {key: value for key, value in changed.items() if key in inputs}
    return graph


@pytest.fixture(scope="module")
def clip() -> Any:
    """One for all workflows: its vocabularies are the published ones."""
    return thin_clip()


def run(graph: dict[str, Any], folder: Path, clip: Any) -> dict[str, Outputs]:
    """Outputs of every node by title; the loaders of models that no stand-in file exists for give thin ones."""
    stand_ins: dict[str, StandIn] = {
        "LoadImage": lambda given: (photo(given["image"]),),
        "DualCLIPLoader": lambda given: (clip,),
        "CLIPVisionLoader": lambda given: (thin_clip_vision(folder),),
        "VAELoader": lambda given: (VideoVae(),),
        "LikenessLoadDetector": lambda given: (LoadedDetector(ColourDetector(FACE)),),
    }
    return run_graph(graph, stand_ins, EXTRAS)


def test_one_speaker(files: None, clip: Any, tmp_path: Path) -> None:
    found = run(small("avatar_one_speaker"), tmp_path, clip)
    video, frames = found["Frames of the sound"][0], found["Clip length"][2]
    assert frames == LENGTH and video.shape == (LENGTH, 96, 96, 3) and bool(torch.isfinite(video).all())
    assert float((video[0] - video[-1]).abs().mean()) > 0.001
    report = found["Character speaks"][1]
    assert "character 1: 0.36 s of sound, strength 1, inside its mask" in report and "memory: " in report
    assert "HunyuanVideo-Avatar" in found["HunyuanVideo-Avatar"][2]
    clip = Path(folder_paths().get_output_directory()) / found["Speaking clip"][1]
    assert clip.is_file() and clip.stat().st_size > 1000
    clip.unlink()


def test_two_speakers(files: None, clip: Any, tmp_path: Path) -> None:
    """Each voice belongs to its own side of the picture."""
    found = run(small("avatar_two_speakers"), tmp_path, clip)
    masks = found["Face masks"]
    assert not (masks[0] * masks[1]).any() and masks[0].any() and masks[1].any() and not masks[2].any()
    assert found["Voices on one clock"][0]["waveform"].shape[0] == 2
    features = found["Audio features"][0]
    assert features.tracks == 2 and features.frames == 46
    video = found["Frames of the sound"][0]
    assert video.shape == (LENGTH, 96, 192, 3) and bool(torch.isfinite(video).all())
    assert "character 2: 1.86 s of sound" in found["Characters speak"][1]
    clip = Path(folder_paths().get_output_directory()) / found["Speaking clip"][1]
    assert clip.is_file()
    clip.unlink()
