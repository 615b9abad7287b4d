"""Training by a file: faces of a folder, stop and resume, logs, previews, plots, reloading, and every refusal."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.demo_weights import DRAWN_ENCODER
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.faces.errors import BadImage, NoFaceFound
from likeness_pack.training import run_config
from likeness_pack.training.people_folder import load_people
from likeness_pack.training.plot import BAR, INK, ROW, TOP, bar_plot, line_plot, picture_tensor, ticks
from likeness_pack.training.run import LossHistory
from pack import ROOT
from PIL import Image
from safetensors.torch import load_file
from tiny_training import KnownDetector, photographs, tiny_drawn_weights

sys.path.append(str(ROOT / "tools"))
command = importlib.import_module("likeness_pack.tools.train")

ADAPTER = {
    "task": "fact", "output": "out", "name": "mine", "steps": 4, "people": 3, "each": 2, "persons": 1, "pictures": 2,
    "preview_every": 2, "preview_steps": 1, "tell_every": 2, "learning_rate": 1e-3, "save_every": 100,
    "resampler": {"width": 32, "depth": 1, "heads": 1, "queries": 4, "feed_forward": 64}, "drop": [0.0, 0.1],
}  # fmt: skip
ENCODER = {"task": "recogniser", "output": "out", "name": "mine", "steps": 3, "people": 4, "batch": 4,
           "tensorboard": False, "preview_every": 0}  # fmt: skip


@pytest.fixture(scope="module")
def weights(module_folders):
    return tiny_drawn_weights(module_folders.mktemp("weights"))


@pytest.fixture
def small(weights, monkeypatch):
    monkeypatch.setattr(run_config, "DEMO_WEIGHTS", weights)
    monkeypatch.setattr(run_config, "_detector", lambda config: KnownDetector())


def run(folder: Path, values: dict, **other) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**values, **other}), encoding="utf-8")
    return command.main([str(folder / "run.json")])


def equal(first: Path, second: Path) -> bool:
    one, two = load_file(first), load_file(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def logged(folder: Path) -> dict[int, float]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert events.Tags()["images"] == ["preview"]
    return {event.step: event.value for event in events.Scalars("loss/total")}


def test_an_adapter_that_was_stopped_ends_with_the_same_weights(small, tmp_path, monkeypatch, capsys):
    assert run(tmp_path / "whole", ADAPTER) == 0
    said = capsys.readouterr().out
    assert "step 2: total " in said and "step 4: total " in said and "fair " in said

    step = command.Watcher.step

    def stopping(self, number, losses):
        step(self, number, losses)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command.Watcher, "step", stopping)
        assert run(tmp_path / "parts", ADAPTER) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "parts" / "out" / "mine.safetensors").exists()
    assert run(tmp_path / "parts", ADAPTER) == 0

    whole, parts = tmp_path / "whole" / "out", tmp_path / "parts" / "out"
    assert equal(whole / "mine.safetensors", parts / "mine.safetensors")
    adapter = registry.load(parts / "mine.safetensors", kind="adapter")
    assert adapter.encoder == "transface_64x3"
    history = json.loads((parts / "mine.losses.json").read_text(encoding="utf-8"))
    assert list(history) == ["1", "2", "3", "4"]
    for folder in (whole, parts):
        assert logged(folder / "logs") == pytest.approx({int(k): v["total"] for k, v in history.items()}, rel=1e-5)
    assert [path.name for path in sorted((whole / "previews").iterdir())] == ["0000002.png", "0000004.png"]
    with Image.open(whole / "previews" / "0000004.png") as preview, Image.open(whole / "losses.png") as plot:
        assert preview.size == (3 * 64, 3 * 64) and len(plot.getcolors(10**6)) > 4

    written = (whole / "mine.safetensors").stat().st_mtime_ns
    assert run(tmp_path / "whole", ADAPTER) == 0
    assert (whole / "mine.safetensors").stat().st_mtime_ns == written
    assert run(tmp_path / "whole", ADAPTER, seed=2) == 1
    assert "go on with the options it was started with" in capsys.readouterr().err
    (whole / "mine.training_state").unlink()
    assert run(tmp_path / "whole", ADAPTER) == 1
    assert "found a file of that name that no state belongs to" in capsys.readouterr().err


def test_faceid_is_read_by_the_ordinary_loader(small, tmp_path):
    assert run(tmp_path, ADAPTER, task="faceid", steps=1, preview_every=0, tensorboard=False, tokens=4) == 0
    adapter = registry.load(tmp_path / "out" / "mine.safetensors")
    assert adapter.report.family == "ip_adapter_faceid" and adapter.encoder == "transface_64x3"
    embedding = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    known = Identity("transface_64x3", {"embedding": embedding}, ("a",))
    assert adapter.tokens(known, TokenOptions()).cond.shape == (1, 4, 768)
    with pytest.raises(EncoderMismatch, match="encode the face with that encoder"):
        adapter.tokens(Identity("arcface_buffalo_l", {"embedding": embedding}, ("a",)), TokenOptions())


def test_a_folder_trains_an_encoder_that_the_ordinary_loader_reads(small, tmp_path, capsys):
    photographs(tmp_path / "people")
    assert run(tmp_path, ENCODER, source="people", recipe="transface") == 0
    assert "6 photographs of 3 persons; recipe transface" in capsys.readouterr().out
    encoder = registry.load(tmp_path / "out" / "mine.safetensors", kind="encoder")
    assert encoder.id == "transface_64x3"
    assert run(tmp_path, ENCODER, recipe="transface") == 1
    assert "source 6 photographs of 3 persons" in capsys.readouterr().err


def test_a_run_goes_on_with_the_photographs_it_was_started_with_alone(small, tmp_path, capsys):
    people = photographs(tmp_path / "people")
    hidden = people / ".thumbnails"
    hidden.mkdir()
    (hidden / "0.png").write_bytes((people / "person 0" / "0.png").read_bytes())
    (people / "person 0" / "._0.png").write_bytes(b"a file manager's notes")
    assert run(tmp_path, ENCODER, source="people") == 0
    assert "6 photographs of 3 persons; recipe" in capsys.readouterr().out
    (people / "person 0" / "0.png").replace(people / "person 0" / "another.png")
    assert run(tmp_path, ENCODER, source="people") == 1
    assert "expected files " in capsys.readouterr().err


def diffusers_folder(folder: Path) -> Path:
    """A tiny SD1.5 in diffusers' layout, with a tokenizer of the letters."""
    diffusers, transformers = importlib.import_module("diffusers"), importlib.import_module("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 32, 32, 32), cross_attention_dim=768, attention_head_dim=8
        )
        levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = diffusers.AutoencoderKL(block_out_channels=(32,) * 4, layers_per_block=1, latent_channels=4, **levels)
        sizes = {"hidden_size": 768, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 8}
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(vocab_size=60, **sizes))
    letters = [letter + end for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    names = [*letters, "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True)
    vocabulary = json.dumps({name: number for number, name in enumerate(names)})
    (folder / "tokenizer" / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    for name, part in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        part.save_pretrained(folder / name)
    return folder


def test_photographs_train_an_adapter_on_a_folder_of_diffusers(small, tmp_path, capsys):
    photographs(tmp_path / "people")
    diffusers_folder(tmp_path / "sd15")
    values = {**ADAPTER, "source": "people", "base": "sd15", "size": 64, "steps": 1, "preview_every": 1}
    assert run(tmp_path, values, tensorboard=False) == 0
    assert "6 photographs of 3 persons; face encoder transface_64x3" in capsys.readouterr().out
    assert registry.load(tmp_path / "out" / "mine.safetensors", kind="adapter").encoder == "transface_64x3"
    assert run(tmp_path, {**values, "source": "drawn", "name": "other"}, tensorboard=False) == 1
    assert "expected the drawn faces model, found another base model" in capsys.readouterr().err
    assert run(tmp_path, {**values, "base": "people", "name": "other"}, tensorboard=False) == 1
    said = capsys.readouterr().err.strip()
    assert "base model people: expected a folder of diffusers with unet" in said and "\n" not in said


DOCUMENT = (ROOT / "docs" / "training_config.md").read_text(encoding="utf-8")
EXAMPLES = [json.loads(text) for text in re.findall(r"(?ms)^```json\n(.*?)^```", DOCUMENT)]


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda values: values["name"])
def test_the_examples_of_the_document_train(values, small, weights, tmp_path, capsys):
    photographs(tmp_path / "people")
    less = {"steps": 1, "preview_every": 0, "tensorboard": False}
    if values["task"] == "recogniser":
        less["batch"] = 4
    else:
        less |= {"people": 3, "each": 2, "persons": 2, "pictures": 2, "size": 64}
    if "base" in values:
        diffusers_folder(tmp_path / values["base"])
        (tmp_path / values["encoder"]).parent.mkdir()
        (tmp_path / values["encoder"]).write_bytes((weights / DRAWN_ENCODER).read_bytes())
    assert run(tmp_path, values, **less) == 0, capsys.readouterr().err
    kind = "encoder" if values["task"] == "recogniser" else "adapter"
    assert registry.load(tmp_path / values["output"] / f"{values['name']}.safetensors", kind=kind)


def test_the_document_lists_every_name():
    sys.path.append(str(ROOT / "tools" / "dev"))
    names = importlib.import_module("training_names")
    assert names.with_tables(DOCUMENT) == DOCUMENT, "run python tools/dev/training_names.py"
    listed = {name for cell in re.findall(r"(?m)^\| (`.*?) \|", DOCUMENT) for name in re.findall(r"\w+", cell)}
    for task in run_config.TASKS:
        assert run_config._own_names(task) | {one.name for one in fields(run_config.Common)} <= listed
    assert {values["task"] for values in EXAMPLES} == set(run_config.TASKS)


def test_a_loss_that_is_not_a_number_is_refused_and_leaves_no_file(small, tmp_path, capsys):
    assert run(tmp_path, ENCODER, learning_rate=1e30, steps=5) == 1
    assert "expected a loss that is a number" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("mine.safetensors")) + list((tmp_path / "out").glob("*.training_state"))


def test_faces_of_a_folder(tmp_path):
    photographs(tmp_path / "people")
    (tmp_path / "people" / "person 0" / "broken.jpg").write_bytes(b"no picture")
    Image.new("RGB", (96, 96)).save(tmp_path / "people" / "person 1" / "black.png")
    seen = []
    people = load_people(tmp_path / "people", KnownDetector(), 64, 2, lambda done, total: seen.append((done, total)))
    assert people.names == ("person 0", "person 1", "person 2") and people.persons.tolist() == [0, 0, 1, 1, 2, 2]
    assert seen[-1] == (8, 8) and people.portraits.shape == (6, 64, 64, 3)
    assert {path.name: reason.split(" (")[0] for path, reason in people.left_out.items()} == {
        "broken.jpg": "cannot be read",
        "black.png": "no face",
    }
    face = people.photos[0].face
    inside = face.landmarks5[0]
    assert bool((inside > 0).all()) and bool((inside < 64).all())
    pictures = people.pictures(torch.tensor([2, 0]), torch.Generator().manual_seed(0))
    own = [photo.crop.float() / 127.5 - 1 for photo in people.photos if photo.person == 2]
    assert pictures.shape == (2, 3, 112, 112) and any(torch.equal(pictures[0], one) for one in own)


def _empty(folder: Path) -> None:
    (folder / "nobody").mkdir()


def _one(folder: Path) -> None:
    photographs(folder, persons=1)


def _loose(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.png")


def _broken(folder: Path) -> None:
    photographs(folder)
    for path in (folder / "person 1").iterdir():
        path.write_bytes(b"no picture")


def _faceless(folder: Path) -> None:
    photographs(folder)
    for path in (folder / "person 1").iterdir():
        Image.new("RGB", (64, 64)).save(path)


@pytest.mark.parametrize(
    ("make", "kind", "found"),
    [
        (None, BadImage, "found no such folder; make a sub-folder for each person"),
        (_empty, BadImage, "found no picture;"),
        (_one, BadImage, r"found one person \(person 0\);"),
        (_loose, BadImage, "found pictures outside of sub-folders;"),
        (_broken, BadImage, r"photographs of person 1: .* found 0 of 2 \(2.png: cannot be read"),
        (_faceless, NoFaceFound, r"found 0 of 2 \(2.png: no face, 3.png: no face\); add clearer photographs"),
    ],
)
def test_folders_that_teach_nothing_are_one_sentence(make, kind, found, tmp_path):
    folder = tmp_path / "people"
    if make is not None:
        folder.mkdir()
        make(folder)
    with pytest.raises(kind, match=found) as error:
        load_people(folder, KnownDetector())
    assert type(error.value) is kind and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"task": "lafr"}, "use tools/train_lafr.py"),
        ({"task": "other"}, "found task 'other'"),
        ({"stepps": 3}, "found stepps"),
        ({"steps": "3"}, "expected steps as int, found steps '3'"),
        ({"steps": True}, "expected steps as int, found steps True"),
        ({"steps": 0}, "expected steps, save_every and tell_every of 1 or more"),
        ({"recipe": "best"}, "expected recipe plain, transface or topofr"),
        ({"recipe": "transface", "network": "resnet"}, "expected a gated transformer"),
        ({"people": 1}, "expected 2 to 1 persons"),
        ({"source": "nowhere"}, "folder nowhere: .* found no such folder"),
    ],
)
def test_configurations_that_ask_for_nothing_are_one_sentence(change, found, small, tmp_path, capsys):
    assert run(tmp_path, ENCODER, **change) == 1
    said = capsys.readouterr().err.strip()
    assert re.search(found, said) and "\n" not in said


def test_broken_and_toml_files(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    assert command.main([str(tmp_path / "a.json")]) == 1
    assert "a JSON or TOML file" in capsys.readouterr().err
    (tmp_path / "a.toml").write_text('task = "recogniser"\noutput = "out"\nsteps = 7\n', encoding="utf-8")
    if sys.version_info >= (3, 11):
        assert run_config.read_config(tmp_path / "a.toml").loop.steps == 7
    monkeypatch.setitem(sys.modules, "tomllib", None)
    assert command.main([str(tmp_path / "a.toml")]) == 1
    assert "write the same values as JSON" in capsys.readouterr().err


def test_without_tensorboard_it_says_so_before_anything_else(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(tmp_path, ENCODER, tensorboard=True) == 1
    assert "TensorBoard logs: expected the package tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_plots_show_lines_bars_and_no_infinities():
    lines = {"a": [(1.0, 0.5), (2.0, 0.25), (3.0, float("nan"))], "b": [(1.0, 0.1), (3.0, 0.2)]}
    plot = picture_tensor(line_plot(lines, "losses", (320, 240)))
    empty = picture_tensor(line_plot({}, "losses", (320, 240)))
    assert plot.shape == (1, 240, 320, 3)
    assert float((plot - empty).abs().amax(dim=-1).gt(0.2).float().mean()) > 0.005
    dots = picture_tensor(line_plot(lines, "losses", (320, 240), marks=True))
    assert not torch.equal(dots, plot)
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0]) and ticks(3, 48)[0] == 10


def test_bars_start_at_zero_are_as_long_as_their_values_and_carry_their_errors():
    plain = bar_plot({"x": 0.5, "y": 1.0, "z": -0.25}, width=500)
    found = {}
    for number, name in enumerate("xyz"):
        inked = [x for x in range(150, 420) if plain.getpixel((x, TOP + ROW * number + BAR // 2)) != (255, 255, 255)]
        found[name] = (inked[0], inked[-1])
    zero = found["x"][0]
    assert found["y"][0] == zero and abs(found["z"][1] - zero) <= 1
    assert (found["y"][1] - zero) / (found["x"][1] - zero) == pytest.approx(2, abs=0.03)
    assert (found["y"][1] - zero) / (zero - found["z"][0]) == pytest.approx(4, abs=0.1)
    marked = bar_plot({"x": 0.5, "y": 1.0, "z": -0.25}, {"y": (0.5, 1.0)}, width=500)
    half, row = round((zero + found["y"][1]) / 2), TOP + ROW + BAR // 2
    assert marked.getpixel((half, row - 5)) == INK and marked.getpixel((half, row - 7)) != INK
    assert marked.getpixel((half - 10, row)) != INK
    assert picture_tensor(bar_plot({})).shape[1] == TOP + 4


def test_losses_after_going_back_replace_the_earlier_ones(tmp_path):
    history = LossHistory(tmp_path / "a.losses.json")
    for step in (1, 2, 3, 2):
        history.add(step, {"total": float(step)})
    assert sorted(history.rows) == [1, 2]
    history.save()
    assert LossHistory.beside(tmp_path / "a.training_state").rows == {}
    (tmp_path / "a.training_state").touch()
    assert LossHistory.beside(tmp_path / "a.training_state").rows == history.rows
