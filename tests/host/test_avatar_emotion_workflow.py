"""The workflow with an emotion from end to end (upstream only): stand-in files, the host's own nodes and sampler.

The checkpoint, whisper-tiny and the emotion file have the published or own layouts at small width and depth, and are
read by the loaders that the graph names. What encodes text and pixels is replaced: LLaVA-Llama-3 has eight billion
numbers, and the VAE's part in this graph is tested with the host's own elsewhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avatar_models
import numpy as np
import pytest
import torch
from graph_runner import Outputs, StandIn, run_graph
from host_inprocess import engine
from likeness_pack.adapters.families.avatar_emotion.arch import EmotionSizes
from likeness_pack.adapters.families.avatar_emotion.layout import EmotionFacts
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from likeness_pack.tools.standins import avatar_emotion as emotion
from likeness_pack.tools.standins import hunyuan_avatar as standin
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from safetensors.torch import save_file
from torch import Tensor
from workflow_files import api_workflow

pytestmark = pytest.mark.skipif(not engine().has_wrappers, reason="this ComfyUI has no HunyuanVideo")

DOUBLE, SINGLE, TEXT = 4, 2, 64
SIDE, FRAMES, RATE = 64, 12, 16_000
FOLDERS = ("diffusion_models", "face_adapters", "face_encoders")


class Vae:
    """What the graph asks of the host's VAE, with pictures averaged and repeated."""

    def encode(self, pictures: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8)[::4]
        return small.mean(1, keepdim=True).repeat(1, 16, 1, 1).movedim(0, 1)[None]

    def temporal_compression_decode(self) -> int:
        return 4

    def spacial_compression_decode(self) -> int:
        return 8

    def decode_tiled(self, samples: Tensor, **tiles: Any) -> Tensor:
        frames = samples[0, :3].movedim(0, -1).sigmoid()
        frames = frames.repeat_interleave(8, 1).repeat_interleave(8, 2)
        return torch.cat((frames[:1], frames[1:].repeat_interleave(4, 0)))[None]


@pytest.fixture(scope="module")
def files(module_folders: ModuleFolders) -> Iterator[None]:
    """Everything where the workflow looks for it."""
    if importlib.util.find_spec("mtcnn") is None:
        pytest.skip("the detector's weights come with the package mtcnn")
    data, image = pytest.importorskip("skimage.data"), pytest.importorskip("PIL.Image")
    model_folders.register_model_folders()
    folder = module_folders.mktemp("models")
    tensors = standin.filled(standin.checkpoint(standin.HEAD, DOUBLE, SINGLE, TEXT))
    torch.save(standin.packed(tensors), folder / "mp_rank_00_model_states.pt")
    write_standin("whisper-tiny", folder, (), "fp32").rename(folder / "whisper-tiny.safetensors")
    sizes = EmotionSizes(standin.HEAD, 64, 2, 32, DOUBLE // 2)
    facts = EmotionFacts(steps=1, clips=1, picture_size=SIDE)
    save_file(
        emotion.filled(emotion.emotion(standin.HEAD, 64, 32, DOUBLE // 2)),
        folder / "avatar_emotion.safetensors",
        facts.metadata(sizes),
    )
    table, inputs = folder_paths().folder_names_and_paths, Path(folder_paths().get_input_directory())
    for name in FOLDERS:
        table[name][0].append(str(folder))
    image.fromarray(data.astronaut()).save(inputs / "astronaut.png")
    image.fromarray(data.astronaut()[20:200, 150:300]).save(inputs / "emotion.png")
    _write_voice(inputs / "voice.wav")
    yield
    for name in FOLDERS:
        table[name][0].remove(str(folder))
    for name in ("astronaut.png", "emotion.png", "voice.wav"):
        (inputs / name).unlink()


def _write_voice(path: Path) -> None:
    samples = np.sin(np.arange(FRAMES * RATE // 25) * 2 * math.pi * 440 / RATE)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 8000).astype("<i2").tobytes())


def _graph() -> dict[str, Any]:
    """The workflow as it is, but for the size, the steps and the length of windows."""
    graph: dict[str, Any] = api_workflow("avatar_emotion")
    for entry in graph.values():
        for name in ("width", "height"):
            if entry["inputs"].get(name) == 704:
                entry["inputs"][name] = SIDE
    by_title = {entry["_meta"]["title"]: entry["inputs"] for entry in graph.values()}
    by_title["Official noise levels"]["steps"] = 2
    by_title["Guidance by step"]["switch_step"] = 1
    by_title["Windows for long clips"]["window"] = 17
    return graph


def run(graph: dict[str, Any]) -> dict[str, Outputs]:
    """Outputs of every node by its title."""
    text = tuple(avatar_models.text(12, 9, TEXT, seed) for seed in (1, 2))
    stand_ins: dict[str, StandIn] = {
        "VAELoader": lambda given: (Vae(),),
        "DualCLIPLoader": lambda given: (None,),
        "CLIPVisionLoader": lambda given: (None,),
        "LikenessEncodeAvatarPrompt": lambda given: text,
    }
    return run_graph(graph, stand_ins, ("video", "custom_sampler", "hunyuan", "images", "latent"))


def test_a_character_speaks_with_an_emotion(files: None) -> None:
    """Every node runs, the video has the voice's length and its sound, and the emotion changes it."""
    av = pytest.importorskip("av")
    found = run(_graph())
    assert found["Sample"][0]["samples"].shape == (1, 16, 33, SIDE // 8, SIDE // 8)
    assert found["As long as the voice"][0].shape == (FRAMES, SIDE, SIDE, 3)
    mask = found["Where the character is"][0]
    assert mask.shape == (1, SIDE // 8, SIDE // 8) and 0.1 < mask.mean() < 0.9
    (saved,) = Path(folder_paths().get_output_directory()).glob("likeness/avatar_emotion*.mp4")
    with av.open(str(saved)) as file:
        assert sum(1 for _ in file.decode(video=0)) == FRAMES and len(file.streams.audio) == 1
    saved.unlink()
    graph = {number: entry for number, entry in _graph().items() if int(number) < 28}
    by_title = {entry["_meta"]["title"]: entry["inputs"] for entry in graph.values()}
    by_title["Windows for long clips"]["model"] = ["17", 0]
    without = run(graph)["Sample"][0]["samples"]
    assert (without - found["Sample"][0]["samples"]).abs().max() > 1e-3
