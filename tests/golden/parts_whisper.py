"""Sound as HunyuanVideo-Avatar, MuseTalk v1 and MuseTalk v1.5 hear it, against their official programs."""

from __future__ import annotations

import re

import torch
from harness import Golden, part
from likeness_pack.adapters.encoders.whisper import (
    mel,
    musetalk_position,
    windows_hunyuan_avatar,
    windows_musetalk_v1,
    windows_musetalk_v15,
)
from likeness_pack.adapters.encoders.whisper.arch import WhisperEncoderNetwork, WhisperStates
from likeness_pack.adapters.encoders.whisper.family import hugging_face_names
from torch import Tensor


def _network(golden: Golden, prefix: str = "") -> WhisperEncoderNetwork:
    """The network filled under the names of the key list, whichever layout they have."""
    filled = golden.filled(golden.keys)
    tensors = hugging_face_names({name.removeprefix(prefix): tensor for name, tensor in filled.items()})
    layers = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    width, inner = tensors["conv1.weight"].shape[0], tensors["layers.0.fc1.weight"].shape[0]
    network = WhisperEncoderNetwork(width, layers, inner)
    network.load_state_dict(tensors, strict=True)
    return network.eval().requires_grad_(False)


def _scaled_input(golden: Golden, name: str) -> Tensor:
    """An input whose recipe is a text such as "[1,80,3000] * 0.5"."""
    recipe = str(golden.metadata["inputs"][name])
    shape = [int(size) for size in re.findall(r"\d+", recipe.split("]")[0])]
    factor = re.search(r"\*\s*([\d.]+)", recipe)
    return golden.input(name, shape) * (float(factor[1]) if factor else 1.0)


def _states(network: WhisperEncoderNetwork, spectrogram: Tensor) -> WhisperStates:
    found: WhisperStates = network(spectrogram)
    return found


@part("hyavatar_whisper_mel")
def hyavatar_whisper_mel(golden: Golden) -> None:
    """The spectrogram of a waveform padded to 30 seconds."""
    inputs = golden.metadata["inputs"]
    waveform = golden.input("waveform", inputs["waveform"]) * float(inputs["scale"])
    (found,) = mel.segment_mels(waveform)
    golden.check("mel", found[:, : golden.tensors["mel"].shape[1]])
    golden.check("bin_mean", found.mean(dim=1))
    golden.check("bin_std", found.std(dim=1))


@part("hyavatar_whisper_windows")
def hyavatar_whisper_windows(golden: Golden) -> None:
    """All states, and the windows of listed frames at two rates."""
    hyper = golden.metadata["hyper_parameters"]
    network = _network(golden, "model.encoder.")
    spectrogram = golden.input("mel", golden.metadata["inputs"]["mel"])[None, :, : mel.CHUNK_FRAMES]
    states = _states(network, spectrogram).normed()
    shown = golden.tensors["hidden_states_t0_t7"].shape[1]
    golden.check("hidden_states_t0_t7", states[:, :shown])
    count = min(int(hyper["num_frames_requested"]), windows_hunyuan_avatar.MOST_FRAMES)
    assert count == int(hyper["num_frames_returned"])
    for name, fps in (("fps25", 25.0), ("fps12_5", 12.5)):
        listed = [int(number) for number in hyper[f"frames_{name}"]]
        found = windows_hunyuan_avatar.windows(states[0], max(*listed, 0) + 1, fps)
        golden.check(f"windows_{name}", found[listed][None])


@part("musetalk_whisper_encoder_v1")
def musetalk_whisper_encoder_v1(golden: Golden) -> None:
    """openai's layout; the five states without the final layer norm, and the normed output beside them."""
    found = _states(_network(golden), _scaled_input(golden, "mel"))
    shown = golden.tensors["embeddings_t0_5"].shape[2]
    golden.check("embeddings_t0_5", found.raw[:, :shown].transpose(1, 2))
    golden.check("last_hidden_t0_5", found.final[:, :shown])


@part("musetalk_whisper_v15")
def musetalk_whisper_v15(golden: Golden) -> None:
    """States and windows of MuseTalk v1.5 with its encoder."""
    states = _states(_network(golden), _scaled_input(golden, "mel")).normed()
    golden.check("hidden_states_t0_5", states[:, : golden.tensors["hidden_states_t0_5"].shape[1]])
    for fps, samples in golden.metadata["inputs"]["librosa_length (fps)"].items():
        for official in (True, False):
            found = windows_musetalk_v15.windows(states[0], int(samples), float(fps), official).flatten(1, 2)
            golden.check(f"chunk_fps{fps}_count", torch.tensor(float(len(found))))
            for name in golden.tensors:
                number = re.fullmatch(rf"chunk_fps{re.escape(fps)}_frame(\d+)", name)
                if number:
                    golden.check(name, found[int(number[1])])


@part("musetalk_whisper_windows_v15")
def musetalk_whisper_windows_v15(golden: Golden) -> None:
    """Windows alone, two segments, the official rule for broken rates."""
    inputs = golden.metadata["inputs"]
    segments = []
    for name in sorted(key for key in inputs if key.startswith("seg")):
        shape = [int(size) for size in re.findall(r"\d+", str(inputs[name]).split("]")[0])]
        segments.append(golden.input(name, shape)[0].unflatten(1, (5, -1)))
    for name in golden.tensors:
        fps = float(name.removeprefix("chunks_fps"))
        samples = int(inputs["librosa_length"])
        found = windows_musetalk_v15.windows(torch.cat(segments), samples, fps, official_rate=True)
        golden.check(name, found.flatten(1, 2))


@part("musetalk_whisper_windows_v1")
def musetalk_whisper_windows_v1(golden: Golden) -> None:
    """Windows, their number and the steps in them, the official loop's extra windows included."""
    states = _scaled_input(golden, "features")
    for name in golden.tensors:
        if not name.startswith("count_fps"):
            continue
        fps = float(name.removeprefix("count_fps"))
        count = windows_musetalk_v1.official_count(len(states), fps)
        golden.check(name, torch.tensor(float(count)))
        golden.check(name.replace("count", "indices"), windows_musetalk_v1.indices(len(states), count, fps))
        found = windows_musetalk_v1.windows(states, None, fps).flatten(1, 2)
        for chunk in golden.tensors:
            if chunk.startswith(name.replace("count", "chunk") + "_"):
                golden.check(chunk, found[int(chunk.rpartition("_")[2]), ::7])


@part("musetalk_pe")
def musetalk_pe(golden: Golden) -> None:
    """The places of the first rows."""
    rows, width = golden.tensors["pe_first50"].shape
    golden.check("pe_first50", musetalk_position.positions(rows, width))
