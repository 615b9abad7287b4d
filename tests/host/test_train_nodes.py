"""Training nodes in the host: drawn faces and folders, cancel and resume, previews, loading the files, refusals."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import conditioning, engine, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BaseModelMismatch, MissingModelFile
from likeness_pack.faces.errors import BadImage
from likeness_pack.inject import drawn_model, model_folders, training_places
from likeness_pack.inject.host import stop_if_cancelled
from likeness_pack.inject.training_places import BadPlace
from likeness_pack.nodes.adapter import LikenessLoadAdapter
from likeness_pack.nodes.encoder import LikenessLoadEncoder
from likeness_pack.nodes.lafr import LikenessLafrTrain
from likeness_pack.nodes.train import LikenessTrainAdapter, LikenessTrainEncoder
from likeness_pack.training import runs
from likeness_pack.training.fact.models import ResamplerShape
from likeness_pack.training.loop import TrainingFailed
from likeness_pack.training.plot import picture_tensor
from module_folders import ModuleFolders
from PIL import Image
from safetensors.torch import load_file
from small_vae import small_vae
from tiny_training import KnownDetector, photographs, tiny_drawn_weights

ADAPTER = {
    "kind": "FACT", "source": "drawn faces", "folder": "", "name": "trained", "people": 3, "persons": 1, "pictures": 2,
    "size": 64, "steps": 2, "learning_rate": 1e-3, "seed": 1, "preview_every": 1, "resume": True,
}  # fmt: skip
ENCODER = {
    "recipe": "plain", "network": "transformer", "source": "drawn faces", "folder": "", "name": "encoder", "people": 4,
    "batch": 4, "steps": 4, "learning_rate": 1e-3, "seed": 1, "preview_every": 0, "resume": True,
}  # fmt: skip
SHAPE = ResamplerShape(width=32, depth=1, heads=1, queries=4, feed_forward=64)


@pytest.fixture(scope="module")
def places(module_folders: ModuleFolders) -> Any:
    """The host's folders, photographs in its input folder, and a tiny drawn faces model."""
    base = engine().base
    model_folders.register_model_folders()
    photographs(base / "input" / "people", size=64)
    weights = tiny_drawn_weights(module_folders.mktemp("weights"))
    patch = pytest.MonkeyPatch()
    patch.setattr(training_places, "input_folder", lambda: base / "input")
    patch.setattr(drawn_model, "FOLDER", weights)
    patch.setattr(runs, "DRAWN_SHAPE", SHAPE)
    patch.setattr(runs, "PREVIEW_STEPS", 1)
    yield engine().models
    patch.undo()


def train(node: type, settings: dict[str, Any], **other: Any) -> tuple[Any, ...]:
    """As the host runs nodes."""
    with torch.inference_mode():
        return node().train(**{**settings, **other})["result"]


def test_drawn_faces_train_an_adapter_that_the_loader_takes(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    class Bar:
        def update_absolute(self, value: int, total: int, preview: Any = None) -> None:
            shown.append((value, total, preview))

    monkeypatch.setattr("likeness_pack.nodes.train.progress_bar", lambda total: Bar())
    with torch.inference_mode():
        answer = LikenessTrainAdapter().train(**ADAPTER)
    name, plot, previews, report = answer["result"]
    assert name == "trained.safetensors" and "3 drawn persons" in report and "steps: 2" in report
    assert plot.shape == (1, 400, 640, 3) and float((plot != 1).any(dim=-1).float().mean()) > 0.005
    assert previews.shape == (3, 64, 192, 3) and not previews.requires_grad
    kept = [(value, preview[0], preview[1].size) for value, _, preview in shown if preview]
    assert kept == [(1, "JPEG", (640, 592)), (2, "JPEG", (640, 592))]
    assert answer["ui"]["text"] == [report]
    temporary = Path(importlib.import_module("folder_paths").get_temp_directory())
    on_the_node = [(temporary / one["subfolder"] / one["filename"], one["type"]) for one in answer["ui"]["images"]]
    for (file, kind), wanted in zip(on_the_node, (plot[0], previews.flatten(0, 1)), strict=True):
        with Image.open(file) as picture:
            assert kind == "temp" and float((picture_tensor(picture)[0] - wanted).abs().max()) < 0.01
    loaded = LikenessLoadAdapter().load(name, "auto")["result"][0]
    assert loaded.adapter.digest == registry.load(places / "face_adapters" / name).digest
    assert loaded.adapter.encoder == "transface_64x3"


def test_a_cancelled_run_says_how_to_go_on_and_ends_with_the_same_weights(
    places: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, _, faces, _ = train(LikenessTrainEncoder, ENCODER, name="whole")
    assert faces.shape == (4, 112, 112, 3) and 0 <= float(faces.min()) < float(faces.max()) <= 1
    assert LikenessLoadEncoder().load(name)[0].id == "transface_64x3"
    calls: list[int] = []

    def cancel() -> None:
        calls.append(1)
        if len(calls) == 2:
            importlib.import_module("comfy.model_management").interrupt_current_processing(True)
        stop_if_cancelled()

    folder = places / "face_encoders"
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr("likeness_pack.nodes.train.stop_if_cancelled", cancel)
        with pytest.raises(BaseException) as stopped:  # noqa: PT011 (the hosts' own class, each has another)
            train(LikenessTrainEncoder, ENCODER, name="parts")
    assert "Interrupt" in type(stopped.value).__name__
    assert "parts.safetensors: stopped; queue the same inputs with resume on to go on" in caplog.text
    assert (folder / "parts.training_state").is_file() and not (folder / "parts.safetensors").exists()
    with pytest.raises(BadPlace, match="found a stopped run of that name; set resume"):
        train(LikenessTrainEncoder, ENCODER, name="parts", resume=False)
    train(LikenessTrainEncoder, ENCODER, name="parts")
    whole, parts = (load_file(folder / f"{stem}.safetensors") for stem in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("node", [LikenessTrainAdapter, LikenessTrainEncoder, LikenessLafrTrain])
def test_changed_photographs_are_trained_on_again(places: Path, node: Any) -> None:
    folder = engine().base / "input" / "changing" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    before = node.IS_CHANGED(source="folder", folder="changing", name="x")
    assert node.IS_CHANGED(source="folder", folder="changing", name="x") == before
    (folder / f"{node.__name__}.png").write_bytes(b"one more")
    assert node.IS_CHANGED(source="folder", folder="changing", name="x") != before
    assert node.IS_CHANGED(source="folder", folder="../..", name="x") == ""


def test_photographs_train_an_adapter_on_the_hosts_model(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        vae = small_vae()
        model, positive = tiny_model("SD15"), conditioning("SD15")
    before = {name: value.clone() for name, value in model.model.diffusion_model.state_dict().items()}
    given = {"model": model, "vae": vae, "positive": positive, "detector": KnownDetector(), "source": "folder"}
    settings = {**ADAPTER, **given, "kind": "IP-Adapter FaceID", "folder": "people", "name": "photos", "steps": 1}
    name, _, previews, report = train(LikenessTrainAdapter, settings, preview_every=0)
    assert "6 photographs of 3 persons" in report and previews.shape == (3, 64, 192, 3)
    assert bool(torch.isfinite(previews).all())
    assert LikenessLoadAdapter().load(name, "auto")["result"][0].adapter.report.family == "ip_adapter_faceid"
    assert all(torch.equal(before[key], value) for key, value in model.model.diffusion_model.state_dict().items())
    with pytest.raises(BaseModelMismatch, match="connect a checkpoint's MODEL"):
        train(LikenessTrainAdapter, settings, model=object(), name="other")


@pytest.mark.parametrize(
    ("node", "settings", "other", "kind", "words"),
    [
        (LikenessTrainEncoder, ENCODER, {"source": "folder", "folder": "people"}, MissingModelFile, "connect detector"),
        (LikenessTrainAdapter, ADAPTER, {"source": "folder"}, MissingModelFile, "connect model, vae and positive"),
        (
            LikenessTrainEncoder,
            ENCODER,
            {"source": "folder", "folder": "nowhere", "detector": KnownDetector()},
            BadImage,
            "found no such folder",
        ),
        (
            LikenessTrainEncoder,
            ENCODER,
            {"source": "folder", "folder": "..", "detector": KnownDetector()},
            BadPlace,
            "inside ComfyUI's input folder",
        ),
        (LikenessTrainEncoder, ENCODER, {"name": "a/b"}, BadPlace, "expected a plain name"),
        (LikenessTrainEncoder, ENCODER, {"learning_rate": 1e30}, TrainingFailed, "expected a loss that is a number"),
        (LikenessTrainEncoder, ENCODER, {"network": "resnet", "recipe": "transface"}, TrainingFailed, "choose one"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    places: Path, node: type, settings: dict[str, Any], other: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as error:
        train(node, {**settings, "name": "refused", **other})
    assert "\n" not in str(error.value)
    assert not list(places.glob("face_*/refused.safetensors"))


@pytest.mark.parametrize("text", ["a\x00b", "x" * 3000, "../../evil", "..", "\n/evil", "C:\\evil"])
def test_names_that_no_file_can_have_are_one_sentence(places: Path, text: str) -> None:
    with pytest.raises(BadPlace, match="expected a plain name") as error:
        train(LikenessTrainEncoder, ENCODER, name=text)
    assert len(str(error.value)) < 400
    if not text.startswith(("\n", "C:")):
        with pytest.raises(BadPlace, match="inside ComfyUI's input folder"):
            training_places.training_folder(text)


def test_an_existing_file_is_never_replaced(places: Path) -> None:
    path = places / "face_encoders" / "mine.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"another's")
    for resume in (True, False):
        with pytest.raises(BadPlace, match="found a file of that name; choose another name"):
            train(LikenessTrainEncoder, ENCODER, name="mine", resume=resume)
    assert path.read_bytes() == b"another's"
    path.unlink()
