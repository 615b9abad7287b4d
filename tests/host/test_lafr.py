"""LAFR in the host: training in a node, aligning, one step through the host's sampler, and the comparison workflow."""

from __future__ import annotations

import copy
import importlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import conditioning, engine, tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, EncoderMismatch, MissingModelFile
from likeness_pack.adapters.families.lafr.one_step import alpha_bar, clean_latent, sigma_of
from likeness_pack.faces.errors import BadImage
from likeness_pack.inject import lafr as host_lafr
from likeness_pack.inject import training_places
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.host import stop_if_cancelled
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.training_places import BadPlace, adapter_file, training_folder
from likeness_pack.nodes.degrade import LikenessDegradePictures
from likeness_pack.nodes.lafr import LikenessLafrAlign, LikenessLafrOneStep, LikenessLafrTrain
from likeness_pack.training.degradations import Strengths, degrade
from likeness_pack.training.lafr_restore import RestoreTask
from likeness_pack.training.levels import Levels
from likeness_pack.training.loop import LoopOptions, train
from likeness_pack.training.low_rank import LowRank
from likeness_pack.training.pictures import PictureBatch
from likeness_pack.training.seeds import generator_for, seed_for
from PIL import Image
from safetensors.torch import load_file, save_file
from sample_faces import face_crops
from server_fixtures import Server, text_of
from small_vae import small_vae, small_vae_tensors
from torch import Tensor
from workflow_files import api_workflow

SETTINGS = {
    "base": "sd15", "folder": "faces", "name": "mine", "steps": 24, "batch": 2, "size": 64, "seed": 1, "codes": 64,
    "hidden": 32, "learning_rate": 3e-3, "resume": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def vae() -> Any:
    return small_vae()


@pytest.fixture(scope="module")
def folder() -> Path:
    """Seven faces in the host's input folder."""
    folder = engine().base / "input" / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    for number, face in enumerate(face_crops(64)):
        Image.fromarray((face * 255).round().to(torch.uint8).numpy()).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def places(folder: Path) -> Any:
    """The host's folders under a base of this test."""
    patch = pytest.MonkeyPatch()
    patch.setattr(training_places, "input_folder", lambda: folder.parent)
    patch.setattr(training_places, "folder_roots", lambda name: [engine().base / "models" / name])
    yield engine().base / "models" / "face_adapters"
    patch.undo()


@pytest.fixture(scope="module")
def trained(vae: Any, places: Path) -> tuple[LoadedAdapter, str]:
    """What the node gives, run as the host runs nodes."""
    with torch.inference_mode():
        return LikenessLafrTrain().train(vae, **SETTINGS)["result"]


@pytest.fixture(scope="module")
def bad_latent(vae: Any) -> dict[str, Any]:
    bad = degrade(face_crops(64)[:2].movedim(-1, 1), [5, 6]).movedim(1, -1)
    with torch.inference_mode():
        return {"samples": vae.encode(bad), "batch_index": [0, 1]}


def test_the_node_trains_and_writes_a_file_of_the_family(trained: tuple[LoadedAdapter, str], places: Path) -> None:
    loaded, report = trained
    assert loaded.adapter.facts.steps == 24 and loaded.adapter.facts.pictures == 7
    assert "24 steps on 7 pictures of 64 px" in report and "file: mine.safetensors\nlearned from: 7 pictures" in report
    again = registry.load(places / "mine.safetensors")
    assert again.digest == loaded.adapter.digest


def test_a_cancelled_run_goes_on_and_ends_with_the_same_weights(
    vae: Any, trained: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    management = importlib.import_module("comfy.model_management")
    calls = []

    def cancel() -> None:
        calls.append(1)
        if len(calls) == 9:
            management.interrupt_current_processing(True)
        stop_if_cancelled()

    with monkeypatch.context() as patched, torch.inference_mode():
        patched.setattr("likeness_pack.nodes.lafr.stop_if_cancelled", cancel)
        with pytest.raises(BaseException) as stopped:  # noqa: PT011 (the hosts' own class, each has another)
            LikenessLafrTrain().train(vae, **{**SETTINGS, "name": "other"})
    assert "Interrupt" in type(stopped.value).__name__
    assert not (places / "other.safetensors").exists()
    steps: list[int] = []
    with torch.inference_mode():
        monkeypatch.setattr("likeness_pack.nodes.lafr.stop_if_cancelled", lambda: steps.append(1))
        LikenessLafrTrain().train(vae, **{**SETTINGS, "name": "other"})
    assert len(steps) == 15
    first, second = (load_file(places / f"{name}.safetensors") for name in ("mine", "other"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pictures_from_the_graph_train_as_well(vae: Any, places: Path) -> None:
    with torch.inference_mode():
        images = face_crops(64) * 1.0
        assert images.is_inference()
        settings = {**SETTINGS, "name": "graph", "folder": "", "steps": 2, "images": images}
        loaded, _ = LikenessLafrTrain().train(vae, **settings)["result"]
    assert loaded.adapter.facts.pictures == 7


def test_aligning_keeps_everything_but_the_samples(trained: Any, bad_latent: dict[str, Any]) -> None:
    loaded, _ = trained
    with torch.inference_mode():
        (full,) = LikenessLafrAlign().align(bad_latent, 1.0, loaded)
        (none,) = LikenessLafrAlign().align(bad_latent, 0.0, loaded)
        expected = loaded.adapter.network(bad_latent["samples"].cpu() * 0.18215) / 0.18215
    assert none["samples"] is bad_latent["samples"] and full["batch_index"] == [0, 1]
    assert torch.allclose(full["samples"], expected, atol=1e-4)
    assert not torch.allclose(full["samples"], bad_latent["samples"], atol=1e-2)


def test_without_a_trained_file_it_refuses_in_one_sentence(trained: Any, bad_latent: dict[str, Any]) -> None:
    with pytest.raises(MissingModelFile) as error:
        LikenessLafrAlign().align(bad_latent, 1.0)
    assert str(error.value) == (
        "Align Latent (LAFR): expected a trained LAFR file in models/face_adapters, through 'Load Face Adapter', found "
        "no adapter; train one with 'Train LAFR' or tools/train_lafr.py, since its authors published no weights."
    )
    with pytest.raises(BadImage, match="16, 8, 8"):
        LikenessLafrAlign().align({"samples": torch.zeros(1, 16, 8, 8)}, 1.0, trained[0])


def test_it_is_no_identity_adapter(trained: Any) -> None:
    with pytest.raises((EncoderMismatch, BaseModelMismatch), match="LAFR"):
        apply_identity(tiny_model("SD15"), trained[0], arcface_identity(), ApplyOptions())


@pytest.mark.parametrize("timestep", [-1, 120])
def test_one_step_through_the_hosts_sampler_is_the_formula(
    trained: Any, bad_latent: dict[str, Any], timestep: int
) -> None:
    model, seen = tiny_model("SD15"), []
    unet = model.model.diffusion_model
    hook = unet.register_forward_hook(lambda layer, args, out: seen.append((args[0], args[1], out)))
    with torch.inference_mode():
        start, sigmas, used = LikenessLafrOneStep().prepare(model, bad_latent, timestep, trained[0])
        comfy = {name: importlib.import_module(f"comfy.{name}") for name in ("sample", "samplers")}
        latent = start["samples"]
        result = comfy["sample"].sample_custom(
            model, torch.zeros_like(latent), 1.0, comfy["samplers"].sampler_object("euler"), sigmas,
            conditioning("SD15"), conditioning("SD15", seed=2), latent, disable_pbar=True, seed=0,
        )  # fmt: skip
    hook.remove()
    assert len(seen) == 1 and used == (399 if timestep < 0 else timestep)
    inputs, time, output = seen[0]
    scaled = bad_latent["samples"] * 0.18215
    assert torch.allclose(inputs, scaled, atol=1e-5) and torch.all(time == used)
    assert float(sigmas[0]) == pytest.approx(sigma_of(alpha_bar(used)), rel=1e-4)
    assert torch.allclose(result * 0.18215, clean_latent(scaled, output, alpha_bar(used)), atol=2e-4)


def test_other_models_are_refused(bad_latent: dict[str, Any]) -> None:
    class Flow:
        def get_model_object(self, name: str) -> Any:
            return object()

    with pytest.raises(BaseModelMismatch, match="1000 discrete noise levels"):
        LikenessLafrOneStep().prepare(Flow(), bad_latent, -1)


def test_a_vae_of_another_model_is_refused() -> None:
    class Other:
        def encode(self, pictures: Tensor) -> Tensor:
            return torch.zeros(len(pictures), 16, 8, 8)

    with pytest.raises(BaseModelMismatch, match=r"found \(1, 16, 8, 8\)"):
        host_lafr.vae_encode(Other(), torch.zeros(1, 3, 64, 64), 1.0)


@pytest.mark.parametrize("name", ["..", "../other", "a/../../b", "", " "])
def test_folders_outside_of_the_input_folder_are_refused(places: Path, name: str) -> None:
    with pytest.raises(BadPlace, match="inside ComfyUI's input folder"):
        training_folder(name)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".hidden", "a:b", ".safetensors", "a\\b", "CON", "a\nb", "字" * 80]
)
def test_names_that_lead_elsewhere_are_refused(places: Path, name: str) -> None:
    with pytest.raises(BadPlace, match="expected a plain name"):
        adapter_file(name, resume=True)


def test_a_finished_file_is_not_replaced_unasked(trained: Any, places: Path) -> None:
    with pytest.raises(BadPlace, match="choose another name, or set resume"):
        adapter_file("mine.safetensors", resume=False)
    assert adapter_file("面 孔", resume=False) == places / "面 孔.safetensors"


def test_the_second_stages_lora_is_one_that_the_host_loads() -> None:
    model = tiny_model("SD15")
    change = LowRank(model.model.diffusion_model, rank=2)
    assert len(change.names) == 16 * 8
    for one in change.changes:
        one.up.data.normal_(generator=generator_for("up"))
    tensors = {name: value.detach().contiguous() for name, value in change.file_tensors().items()}
    patched, _ = importlib.import_module("comfy.sd").load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert len(patched.patches) == 16 * 8


def test_the_second_stage_trains_through_the_hosts_unet(trained: Any, vae: Any) -> None:
    """Gradients reach every change of the real attention layers, through both host and one-step formula."""
    unet = tiny_model("SD15").model.diffusion_model.requires_grad_(False)
    context = conditioning("SD15")[0][0]
    pictures = PictureBatch(face_crops(64), 64)

    def denoise(latents: Tensor) -> Tensor:
        time = torch.full((len(latents),), 399.0)
        return unet(latents, timesteps=time, context=context.expand(len(latents), -1, -1))

    def decode(latents: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8.0)

    encode = partial(host_lafr.vae_encode, vae, scale=0.18215)
    adapter = copy.deepcopy(trained[0].adapter.network)
    task = RestoreTask(pictures, encode, decode, denoise, unet, adapter, trained[0].adapter.facts, Levels(), rank=2)
    loss = task.losses(0)["total"]
    if not engine().upstream:
        # The blocks of the package host add in place, which no gradient survives.
        with pytest.raises(RuntimeError, match="inplace"):
            loss.backward()
        return
    loss.backward()
    ups = [change.up.grad for change in task.low_rank.changes]
    assert len(ups) == 128 and all(grad is not None and grad.abs().sum() > 0 for grad in ups)
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert train(task, LoopOptions(2, 1e-3)) == 2


def test_the_degrade_node_gives_what_the_model_says(folder: Path) -> None:
    images = face_crops(64)[:3]
    with torch.inference_mode():
        bad, report = LikenessDegradePictures().degrade(images, 9, 2, 1.0, 1.0, 1.0, 1.0, True)["result"]
        frames, _ = LikenessDegradePictures().degrade(images[:1].expand(2, -1, -1, -1), 9, 2, 1, 1, 1, 1, False)[
            "result"
        ]
        same, _ = LikenessDegradePictures().degrade(images, 9, 0, 1.0, 1.0, 1.0, 1.0, True)["result"]
    seeds = [seed_for(9, number) for number in range(3)]
    assert torch.equal(bad, degrade(images.movedim(-1, 1), seeds, Strengths()).movedim(1, -1))
    assert len(report.splitlines()) == 3 and "camera noise" in report
    assert torch.equal(same, images)
    assert 0 < (frames[0] - frames[1]).abs().mean() < 0.5 * (frames[0] - images[0]).abs().mean()


def test_the_command_trains_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_lafr = importlib.import_module("likeness_pack.tools.train_lafr")
    vae = {f"first_stage_model.{name}": value.contiguous() for name, value in small_vae_tensors().items()}
    save_file(vae, tmp_path / "m.safetensors")
    command = ["--pictures", str(folder), "--vae", str(tmp_path / "m.safetensors"), "--size", "64", "--steps", "6",
               "--batch", "2", "--hidden", "32", "--codes", "32", "--warmup", "2", "--tell-every", "3",
               "--device", "cpu", "--output", str(tmp_path / "out" / "a.safetensors")]  # fmt: skip
    assert train_lafr.main(command) == 0
    said = capsys.readouterr().out
    assert "step 3: " in said and "step 6: " in said and "after alignment" in said
    assert registry.load(tmp_path / "out" / "a.safetensors").facts.steps == 6
    assert train_lafr.main([*command, "--seed", "2"]) == 1
    assert "expected seed 0, found seed 2" in capsys.readouterr().err
    assert train_lafr.main(["--pictures", str(tmp_path / "none"), *command[2:]]) == 1
    capsys.readouterr()
    for name in ("--tell-every", "--steps", "--batch"):
        with pytest.raises(SystemExit):
            train_lafr.main([*command, name, "0"])
        assert f"{name}: expected 1 or more, found 0" in capsys.readouterr().err


# The workflow


def without_files(graph: dict[str, Any]) -> dict[str, Any]:
    """The part of the workflow that needs no weight file: whatever hangs on a loader of one goes, links included."""
    gone = {
        number
        for number, entry in graph.items()
        if entry["class_type"] in ("LikenessLoadRestorerCheckpoint", "CLIPVisionLoader")
        or entry["inputs"].get("encoder") in ("arcface_buffalo_l", "musiq_koniq_ckpt-e95806b9.pth")
    }
    table = next(number for number, entry in graph.items() if entry["class_type"] == "LikenessCompareRestorers")
    for _ in graph:
        gone |= {
            number
            for number, entry in graph.items()
            if number != table and any(isinstance(v, list) and v[0] in gone for v in entry["inputs"].values())
        }
    kept = {number: entry for number, entry in graph.items() if number not in gone}
    links = kept[table]["inputs"]
    kept[table]["inputs"] = {name: v for name, v in links.items() if not (isinstance(v, list) and v[0] in gone)}
    return kept


def test_the_part_without_weights_runs_in_a_server(server: Server) -> None:
    graph = without_files(api_workflow("compare_restorers"))
    outputs = server.run(graph)
    table = next(number for number, entry in graph.items() if entry["class_type"] == "LikenessCompareRestorers")
    lines = text_of(outputs, table).splitlines()
    row = lines[2].split()
    assert row[0] == "degraded" and 10 < float(row[1]) < 40 and 0 < float(row[2]) < 1
    # dlib finds the face again, and calls it another person's.
    assert "0 of 1" in lines[2] and 0.6 < float(row[3]) < 1
