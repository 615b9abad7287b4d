"""DreamID-V's workflow from end to end (upstream only): a clip of three seconds, stand-in files, the host's own nodes.

Files have the published layouts at small width, 30 blocks as published, and are read by the loaders that a user's graph
names. The VAE is the host's own with narrow layers. Only 'Load CLIP' is replaced: umT5-xxl has 5.7 billion numbers.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from graph_runner import Outputs, run_graph
from host_inprocess import engine
from likeness_pack import nodes as ours
from likeness_pack.adapters.errors import HostTooOld
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from likeness_pack.tools.standins.command import write_standin
from likeness_pack.tools.standins.fill import filled_all
from module_folders import ModuleFolders
from torch import Tensor
from workflow_files import api_workflow

newer = pytest.mark.skipif(not engine().has_wrappers, reason="this ComfyUI has no Wan")
FRAMES, RATE, HEIGHT, WIDTH = 9, 3, 112, 128
NARROW = 8
WIDTHS = (128, 256)
PLACES = {"diffusion_models": "unet", "vae": "vae", "input": "input"}


class Umt5:
    """What 'CLIP Text Encode' asks of a CLIP: a text of the true width and length, zero after its last token."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list[list[Any]]:
        assert text == "chang face"
        numbers = torch.randn(1, 5, 4096, generator=torch.Generator().manual_seed(1))
        return [[torch.nn.functional.pad(numbers, (0, 0, 0, 507)), {}]]


def _wan_vae() -> Any:
    return functools.partial(importlib.import_module("comfy.ldm.wan.vae").WanVAE)


def _narrow(original: Any) -> Any:
    return lambda **sizes: original(**{**sizes, "dim": NARROW})


def _write_vae(path: Path) -> None:
    sizes = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "dropout": 0.0, "z_dim": 16}
    with torch.device("meta"):
        network = _narrow(_wan_vae())(**sizes, temperal_downsample=[False, True, True])
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    tensors = filled_all(shapes, torch.float32)
    torch.save({name: torch.ones_like(x) if name.endswith("gamma") else x for name, x in tensors.items()}, path)


def _write_clip(path: Path, photo: Tensor) -> None:
    """A face that wanders: three seconds of nine frames, with sound."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=RATE, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", bit_rate=4_000_000)
        sound = file.add_stream("aac", rate=16000, layout="mono")
        for number in range(FRAMES):
            left = 160 + 2 * number
            picture = photo[50 : 50 + HEIGHT, left : left + WIDTH].contiguous().numpy()
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(video.encode())
        tone = torch.sin(torch.arange(3 * 16000) / 10)[None].numpy()
        for start in range(0, tone.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(tone[:, start : start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            file.mux(sound.encode(frame))
        file.mux(sound.encode())


@pytest.fixture(scope="module")
def files(module_folders: ModuleFolders) -> Iterator[None]:
    """Everything where the workflow looks for it."""
    for package in ("dlib", "face_recognition_models"):
        pytest.importorskip(package)
    data, image = pytest.importorskip("skimage.data"), pytest.importorskip("PIL.Image")
    model_folders.register_model_folders()
    folder = module_folders.mktemp("models")
    for name, standin in (("dreamidv", "dreamid-v"), ("dreamidv_faster", "dreamid-v-faster")):
        write_standin(standin, folder, WIDTHS, "fp32").rename(folder / f"{name}.pth")
    _write_vae(folder / "Wan2.1_VAE.pth")
    table, inputs = folder_paths().folder_names_and_paths, Path(folder_paths().get_input_directory())
    for name in ("diffusion_models", "vae"):
        table[name][0].append(str(folder))
    photo = torch.from_numpy(data.astronaut())
    image.fromarray(photo.numpy()).save(inputs / "astronaut.png")
    _write_clip(inputs / "clip.mp4", photo)
    wan = importlib.import_module("comfy.ldm.wan.vae")
    with mock.patch.object(wan, "WanVAE", _narrow(wan.WanVAE)):
        yield
    for name in ("diffusion_models", "vae"):
        table[name][0].remove(str(folder))
    for name in ("astronaut.png", "clip.mp4"):
        (inputs / name).unlink()


def run(graph: dict[str, Any]) -> dict[str, Outputs]:
    """Outputs of every node by its title."""
    return run_graph(graph, {"CLIPLoader": lambda given: (Umt5(),)}, ("custom_sampler", "model_advanced"))


def _graph() -> dict[str, Any]:
    return api_workflow("swap_clip_dreamid_v")


@newer
def test_a_clip_comes_out_whole_with_its_sound(files: None) -> None:
    av = importlib.import_module("av")
    found = run(_graph())
    frames, (swapped, report) = found["Clip to change"][0], found["Swap the clip"]
    assert swapped.shape == frames.shape == (FRAMES, HEIGHT, WIDTH, 3) and torch.isfinite(swapped).all()
    assert f"frames: {FRAMES} in, {FRAMES} out" in report and "12 steps each, guidance 4 (cfg 5)" in report
    assert (swapped - frames).abs().mean() > 0.02
    pose, mask = found["Pose pictures and mask"][:2]
    assert (pose.amax(dim=(1, 2, 3)) == 1).all() and (mask.mean(dim=(1, 2)) > 0.05).all()
    saved = Path(folder_paths().get_output_directory()) / found["Swapped clip"][1]
    with av.open(str(saved)) as file:
        times = [float(frame.time) for frame in file.decode(video=0)]
        assert times == pytest.approx([number / RATE for number in range(FRAMES)], abs=0.01)
        assert len(file.streams.audio) == 1
    saved.unlink()


@newer
def test_the_faster_file_needs_no_pose_and_chunks_may_be_short(files: None) -> None:
    graph = _graph()
    graph["4"]["inputs"]["file"] = "dreamidv_faster.pth"
    swap = graph["11"]["inputs"]
    swap |= {"steps": 2, "chunk_frames": 5, "overlap": 2, "inside_mask": True}
    del swap["pose"], graph["12"]
    found = run(graph)
    frames, mask, swapped = (
        found["Clip to change"][0],
        found["Pose pictures and mask"][1],
        found["Swap the clip"][0],
    )
    assert torch.equal(swapped[mask == 0], frames[mask == 0]) and not torch.equal(swapped[mask == 1], frames[mask == 1])
    assert "chunks: 3 of up to 5 frames" in found["Swap the clip"][1]
    swap["pose"] = ["10", 0]
    with pytest.raises(LikenessError, match="takes no pose pictures; disconnect the pose pictures"):
        run(graph)


def _stepwise(sampled: dict[str, Any]) -> dict[str, Any]:
    """The same clip node by node; ``sampled`` replaces the sampling nodes 20 and up."""
    graph = {number: entry for number, entry in _graph().items() if int(number) < 11}
    size = {"width": 832, "height": 480}
    steps = {
        "11": (
            "LikenessPrepareDreamIDV",
            {"images": ["1", 0], "photo": ["3", 0], "mask": ["10", 1], "pose": ["10", 0], **size},
        ),
        "12": (
            "LikenessConditionDreamIDV",
            {
                "model": ["4", 0], "adapter": ["4", 1], "positive": ["6", 0], "negative": ["6", 0], "vae": ["7", 0],
                "frames": ["11", 0], "photo": ["11", 1], "mask": ["11", 2], "pose": ["11", 3], "pose_strength": 1.0,
            },
        ),
        **sampled,
        "30": ("VAEDecode", {"samples": ["21", 0], "vae": ["7", 0]}),
        "31": ("LikenessRestoreDreamIDV", {"frames": ["30", 0], "images": ["1", 0], **size}),
    }  # fmt: skip
    made = {n: {"class_type": name, "inputs": given, "_meta": {"title": name}} for n, (name, given) in steps.items()}
    return graph | made


LATENT = {"positive": ["12", 1], "negative": ["12", 2], "latent_image": ["12", 3], "cfg": 5.0}


@newer
def test_node_by_node_with_the_authors_sampler_is_the_one_node(files: None) -> None:
    graph = _stepwise(
        {
            "20": ("LikenessDreamIDVSampler", {"steps": 3, "shift": 5.0}),
            "21": (
                "SamplerCustom",
                {
                    "model": ["12", 0],
                    "add_noise": True,
                    "noise_seed": 7,
                    "sampler": ["20", 0],
                    "sigmas": ["20", 1],
                    **LATENT,
                },
            ),
        }
    )
    whole = _graph()
    whole["11"]["inputs"] |= {"steps": 3, "seed": 7}
    del whole["12"]
    wanted, got = run(whole)["Swap the clip"][0], run(graph)["LikenessRestoreDreamIDV"][0]
    assert torch.equal(got, wanted)


@newer
def test_the_hosts_own_sampler_takes_it_too(files: None) -> None:
    graph = _stepwise(
        {
            "20": ("ModelSamplingSD3", {"model": ["12", 0], "shift": 5.0}),
            "21": (
                "KSampler",
                {
                    "model": ["20", 0],
                    "seed": 7,
                    "steps": 2,
                    "sampler_name": "uni_pc",
                    "scheduler": "simple",
                    "denoise": 1.0,
                    **LATENT,
                },
            ),
        }
    )
    found = run(graph)
    assert found["LikenessRestoreDreamIDV"][0].shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert torch.isfinite(found["LikenessRestoreDreamIDV"][0]).all()


@pytest.mark.skipif(engine().has_wrappers, reason="this ComfyUI has Wan")
def test_an_older_host_says_what_it_needs(tmp_path: Path) -> None:
    """Nodes load there, and name the version before anything is read."""
    model_folders.register_model_folders()
    node = ours.NODE_CLASS_MAPPINGS["LikenessLoadDreamIDV"]
    assert "file" in node.INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    (tmp_path / "dreamidv.pth").write_bytes(b"never read")
    folder_paths().folder_names_and_paths["unet"][0].append(str(tmp_path))
    with pytest.raises(HostTooOld, match=r"expected ComfyUI 0\.3\.60 or newer, found one without Wan; update ComfyUI"):
        node().load("[unet] dreamidv.pth")
    folder_paths().folder_names_and_paths["unet"][0].remove(str(tmp_path))
